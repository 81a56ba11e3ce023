"""From host names to addresses, within a limit: the system's resolver has none of ours.

Rules: a lookup that takes longer is left behind on its daemon thread, which nothing can end; who
asks for the same host meanwhile waits for the same one; at most MAX_LOOKUPS are under way, beyond
which a new one fails at once. A numeric address needs no lookup, and no thread. Nothing is cached.
A forked child begins with none.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - a first lookup would import it, perhaps as another thread forks
import os
import socket
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any

MAX_LOOKUPS = 16

Address = tuple[Any, Any, int, str, Any]  # as socket.getaddrinfo has it


@dataclass(slots=True)
class _Lookup:
    done: Event = field(default_factory=Event)
    found: list[Address] = field(default_factory=list)
    error: OSError | UnicodeError | None = None


_lock = Lock()
_lookups: dict[tuple[str, int], _Lookup] = {}


def addresses_of(host: str, port: int, limit_s: float) -> list[Address]:
    """The stream addresses of a host, as socket.getaddrinfo gives them.

    Raises:
        TimeoutError: not within the limit. OSError: there is no such name, or too many lookups
        hang. UnicodeError: no host can have that name.
    """
    try:
        return _found(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        lookup = _begun(host, port)
    if not lookup.done.wait(limit_s):
        raise TimeoutError(
            f"the name {host} is not resolved after {limit_s:g} s: check the resolver"
            " (/etc/resolv.conf), or give an address"
        )
    if lookup.error is not None:
        raise type(lookup.error)(*lookup.error.args)
    return lookup.found


def connected(host: str, port: int, resolve_s: float, connect_s: float) -> socket.socket:
    """A TCP connection to the first address of a host that takes one within `connect_s`.

    Raises: OSError, UnicodeError, as `addresses_of`, and of the last address.
    """
    failure = OSError(f"the name {host} has no address")
    for family, kind, protocol, _, address in addresses_of(host, port, resolve_s):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(connect_s)
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error.with_traceback(None)
        except BaseException:
            sock.close()
            raise
    raise failure


def _begun(host: str, port: int) -> _Lookup:
    with _lock:
        lookup = _lookups.get((host, port))
        if lookup is not None:
            return lookup
        if len(_lookups) >= MAX_LOOKUPS:
            raise OSError(
                f"the name {host} cannot be looked up: {MAX_LOOKUPS} lookups are under way, the"
                " most: check the resolver (/etc/resolv.conf)"
            )
        lookup = _lookups[host, port] = _Lookup()
    thread = Thread(target=_work, args=(host, port, lookup), name="lookup", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread to be had
        _work(host, port, lookup)
    return lookup


def _work(host: str, port: int, lookup: _Lookup) -> None:
    try:
        lookup.found = _found(host, port, 0)
    except (OSError, UnicodeError) as error:
        lookup.error = error
    finally:
        with _lock:
            _lookups.pop((host, port), None)
        lookup.done.set()


def _found(host: str, port: int, flags: int) -> list[Address]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


def _in_child() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may hold it
    _lock = Lock()
    _lookups.clear()


os.register_at_fork(after_in_child=_in_child)
