"""Who is in the ring, as its nodes tell: the member table of one client, kept in step with theirs.

Rules: thread-safe; one thread asks, the others wait for what it learns; asked at most every
refresh_ms. While no endpoint answers, they are left alone for eject_ms, doubling.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Protocol

from cachesvc.core.errors import CacheError, NodeUnavailable, Retry, Unauthenticated
from cachesvc.core.ring import Member
from cachesvc_client.config import ClientConfig, is_local
from cachesvc_client.hello import Welcome
from cachesvc_client.router import Router


class Greeter(Protocol):
    """What says Hello: a lane, or gRPC."""

    def hello(self, address: str) -> Welcome:
        """What a node says of its cluster. Raises NodeUnavailable, ProtocolError, ..."""

    def greet(self, member: Member) -> Welcome:
        """What a member says of it."""

    def keep_to(self, members: Iterable[Member]) -> None:
        """These are the cluster: let go what was held for others."""


class Meeting:
    """Gives the router the member tables that nodes tell of. endpoints: where the first is asked.
    welcome: the last one, if any.

    checked: called with every Welcome before it is believed; raises the CacheError that is wrong
    with it.
    """

    def __init__(
        self,
        config: ClientConfig,
        router: Router,
        greeter: Greeter,
        endpoints: Sequence[str],
        checked: Callable[[Welcome], None] = lambda _: None,
    ) -> None:
        self.endpoints = list(endpoints)
        self.welcome: Welcome | None = None
        self._config = config
        self._router = router
        self._greeter = greeter
        self._checked = checked
        self._refreshing = Lock()
        self._refreshed_s = float("-inf")
        self._down: tuple[float, float, CacheError] | None = None  # until, pause, why

    @property
    def trouble(self) -> CacheError | None:
        """Why no endpoint answered when they were asked last."""
        return self._down[2] if self._down else None

    def refresh(self, member: Member | None) -> None:
        """The contract of effects.Refresh."""
        if member is not None and self._too_soon():
            return
        with self._refreshing:
            if self._too_soon() and self._router.known:
                return
            if member is not None:
                self._adopt(self._greeter.greet(member))
            else:
                self._ask_endpoints()

    def _too_soon(self) -> bool:
        return time.monotonic() - self._refreshed_s < self._config.refresh_ms / 1000

    def _ask_endpoints(self) -> None:
        now_s = time.monotonic()
        if self._down is not None and now_s < self._down[0]:
            raise type(self._down[2])(str(self._down[2]))
        why: CacheError = NodeUnavailable("no endpoint is known in this process")
        random.shuffle(self.endpoints)
        self.endpoints.sort(key=is_local, reverse=True)
        for address in self.endpoints:
            try:
                self._adopt(self._greeter.hello(address))
                self._greet_locals(address)
                return
            except CacheError as error:
                if error.retry is Retry.NEVER and not isinstance(error, Unauthenticated):
                    raise
                why = why if isinstance(why, Unauthenticated) else error
        pause_s = self._config.eject_ms / 1000
        if self._down is not None:
            pause_s = min(self._down[1] * 2, self._config.eject_max_ms / 1000)
        self._down = time.monotonic() + pause_s, pause_s, why
        raise why

    def _greet_locals(self, greeted: str) -> None:
        """Learn who is behind the other Unix sockets of this host, as far as anybody is."""
        for address in self.endpoints:
            if is_local(address) and address != greeted:
                with suppress(CacheError):
                    self._greeter.hello(address)

    def _adopt(self, welcome: Welcome) -> None:
        self._checked(welcome)
        self._router.adopt(welcome.table, welcome.geometry, welcome.vnodes_per_weight)
        self._greeter.keep_to(welcome.table.members)
        for member in welcome.table.members:
            if member.node_id == welcome.node_id:
                self._router.succeeded(member)
        self._refreshed_s = time.monotonic()
        self._down = None
        self.welcome = welcome
