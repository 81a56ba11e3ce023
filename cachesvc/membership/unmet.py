"""Addresses of the member list where no node has been met: told once in the log, and to whoever
says Hello, because a typo there would leave a ring that works and is too small.

Rules: nodes of a list may start one after another, so nothing is said for GRACE_S (a refusal is
logged at once, by static.py). A member that is in the table and down is no matter of this. Belongs
to the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import structlog

GRACE_S = 10.0
MAX_SAID_COUNT, MAX_WHY_CHARS = 5, 300  # a Hello's answer has 64 KiB
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
        self._why[address] = why[:MAX_WHY_CHARS]

    def met(self, address: str) -> None:
        """A node answers there, whatever it calls itself."""
        self._since_s.pop(address, None)
        self._why.pop(address, None)
        self._told.discard(address)

    def keep_to(self, addresses: Iterable[str]) -> None:
        """Only these may be unmet."""
        for address in self._since_s.keys() - set(addresses):
            self.met(address)

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
        said = [f"member {one} was never met: {self._why[one]}" for one in late[:MAX_SAID_COUNT]]
        more = [f"and {len(late) - len(said)} more"] if len(late) > len(said) else []
        return "; ".join(said + more)
