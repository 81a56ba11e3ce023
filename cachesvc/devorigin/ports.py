"""Ports for processes that the demo, the tests and the benchmarks start on loopback.

A port is chosen some time before somebody listens on it. So it is taken from below those that the
kernel hands out itself, each process begins elsewhere, and none comes again before all have.
"""

from __future__ import annotations

import os
import socket
from itertools import cycle

_PORTS = range(10_240, 32_768)
_STRIDE = 4099  # between the beginnings of two processes whose numbers follow one another

_begun_by = 0
_next = cycle(_PORTS)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now, no two of them the same.

    Raises: OSError if there are not so many.
    """
    global _begun_by, _next  # noqa: PLW0603 - the ports are those of the machine
    if _begun_by != os.getpid():
        _begun_by = os.getpid()
        first = _begun_by * _STRIDE % len(_PORTS)
        _next = cycle([*_PORTS[first:], *_PORTS[:first]])
    found: list[int] = []
    for _ in _PORTS:
        if len(found) == count:
            return found
        port = next(_next)
        if _is_free(port):
            found.append(port)
    raise OSError(f"no {count} free ports from {_PORTS.start} to {_PORTS.stop} on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
