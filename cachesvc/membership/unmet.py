"""Addresses of the member list where no node has been met: told once in the log, and to whoever
says Hello, because a typo there would leave a ring that works and is too small.

Rules: nodes of a list may start one after another, so nothing is said for GRACE_S. A member that
was met and is down is no matter of this: it keeps its place in the table. Belongs to the event
loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import structlog

GRACE_S = 10.0
NOBODY = "nobody answers there"

log = structlog.get_logger(__name__)


class Unmet:
    """Why each address is still unmet, and since when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since_s: dict[str, float] = {}
        self._why: dict[str, str] = {}
        self._told: set[str] = set()

    def failed(self, address: str, why: str = NOBODY) -> None:
        """An introduction to this address failed."""
        self._since_s.setdefault(address, self._clock())
        self._why[address] = why

    def keep_to(self, addresses: Iterable[str]) -> None:
        """Only these are unmet."""
        for address in self._since_s.keys() - set(addresses):
            del self._since_s[address], self._why[address]
            self._told.discard(address)

    def trouble(self) -> str:
        """What to say of them; empty: nothing, or nothing yet. Where nobody answers is logged once;
        who refuses has said so already.
        """
        now = self._clock()
        late = sorted(one for one, since in self._since_s.items() if now - since >= GRACE_S)
        for address in late:
            if self._why[address] == NOBODY and address not in self._told:
                self._told.add(address)
                log.warning("member never met", address=address, why=NOBODY)
        return "; ".join(f"member {one} was never met: {self._why[one]}" for one in late)
