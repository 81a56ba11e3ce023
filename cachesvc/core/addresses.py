"""HOST:PORT, as it is written everywhere.

Rules: nothing is resolved here; `[V6]:PORT` has its brackets taken off.
"""

from __future__ import annotations

import ipaddress
import re

_PORT = re.compile(r"[0-9]{1,5}")


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` or `[V6]:PORT` as (host, port).

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = address.rpartition(":")
    if colon and not (_PORT.fullmatch(port) and int(port) <= 65535):
        raise ValueError(f"{address!r} is no HOST:PORT: a port is a number up to 65535")
    if not host:
        raise ValueError(f"{address!r} is no HOST:PORT")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address."""
    host = split_address(address)[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
