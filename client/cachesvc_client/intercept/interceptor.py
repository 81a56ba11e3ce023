"""What stands beside one S3 client: it looks at every GetObject and HeadObject before it is sent,
and hears the answers of those that S3 gives.

Story: `sync` and `aio` are the two kinds; what they share is here. `Interception` is what
`install` made: one for the process, on which all interceptors look.

Rules: whatever is raised in here stops here, is counted, and the request goes to S3. Requests that
we make ourselves are not looked at (`ours`). A client is held weakly: its events hold us.
"""

from __future__ import annotations

import random
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from cachesvc.core.types import ObjectName
from cachesvc_client.client import CacheClient
from cachesvc_client.intercept.fields import FieldTable, fields_of, needs_key
from cachesvc_client.intercept.refusals import Refusals
from cachesvc_client.intercept.request import Passed, Place, Wanted, wanted_of
from cachesvc_client.intercept.shadow import Comparison
from cachesvc_client.intercept.stats import STATS
from cachesvc_client.intercept.writes import names_in
from cachesvc_client.threads import Threads

USER_AGENT = "cachesvc"  # of the S3 clients of nodes and of CacheClient, which read the origin

_WRITTEN = "cachesvc.written"  # in the context that botocore gives all events of a call


@dataclass(slots=True, weakref_slot=True)
class Interception:
    """The settings and the state that all interceptors of a process share.

    shadow: the share of GETs, 0 to 1, that are done both ways. chance: gives numbers in [0, 1).
    active: False once it was given back; interceptors that are still there then pass.
    """

    cache: CacheClient
    place: Place
    shadow: float = 0.0
    chance: Callable[[], float] = field(default_factory=lambda: random.Random().random)
    table: FieldTable = field(default_factory=lambda: FieldTable(time.monotonic))
    refusals: Refusals = field(default_factory=lambda: Refusals(time.monotonic))
    threads: Threads = field(default_factory=Threads)
    active: bool = True


@dataclass(frozen=True, slots=True)
class _Passing:
    """A read on its way to S3, whose answer is of interest."""

    wanted: Wanted
    sent_at: float
    shadow: bool


_passing: ContextVar[_Passing | None] = ContextVar("cachesvc_passing", default=None)
_ours: ContextVar[bool] = ContextVar("cachesvc_ours", default=False)


@contextmanager
def ours() -> Iterator[None]:
    """Within, requests of this thread or task are our own."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


class Interceptor:
    """Shared by both kinds; see the head of this file."""

    def __init__(self, client: Any, interception: Interception) -> None:
        self._client = weakref.ref(client)
        self.interception = interception

    @property
    def client(self) -> Any:
        client = self._client()
        if client is None:
            raise Passed("closed")
        return client

    def look(self, request: Any) -> Wanted | None:
        """What to answer from the cache; None: nothing, S3 is to be asked."""
        if _ours.get():
            return None
        _passing.set(None)
        if not self.interception.active:
            return None
        try:
            wanted = wanted_of(request, self.interception.place)
        except Passed as why:
            STATS.passed(str(why))
            return None
        if not wanted.head and self.interception.chance() < self.interception.shadow:
            self.leave(wanted, "shadow", shadow=True)
            return None
        return wanted

    def leave(self, wanted: Wanted, why: str, *, shadow: bool = False) -> None:
        """S3 answers this read; what it says to HEAD is heard."""
        STATS.passed(why)
        if wanted.head or shadow:
            _passing.set(_Passing(wanted, time.monotonic(), shadow))

    def after_call(self, http_response: Any, parsed: Any, **_: Any) -> None:
        """S3, or we, answered a call."""
        if _ours.get():
            return
        passing = _passing.get()
        _passing.set(None)
        if passing is None or http_response.status_code not in (200, 206):
            return
        try:
            if passing.shadow:
                self._compare(passing, http_response, parsed["Body"])
            elif http_response.status_code == 200:
                self._hear(passing, http_response.headers)
        except Exception as error:
            STATS.fault(error)

    def remember(self, params: Any, context: Any, **_: Any) -> None:
        """A write is about to be made."""
        if not self.interception.active:
            return
        try:
            context[_WRITTEN] = self._ours_of(params)
        except Exception as error:
            STATS.fault(error)

    def _ours_of(self, params: Any) -> list[ObjectName]:
        place, home = self.interception.place, self.client.meta.endpoint_url
        try:
            place.locate(f"{home}/bucket/key")
        except Passed as why:
            if str(why) == "endpoint":
                return []
        return [name for name in names_in(params) if place.holds(name)]

    def written(self, context: Any) -> list[ObjectName]:
        """What a write, which has come to its end, was of."""
        names: list[ObjectName] = context.pop(_WRITTEN, [])
        for name in names:
            self.interception.table.drop(name)
            self.interception.refusals.clear(name)
        return names

    def forget(self, names: list[ObjectName]) -> None:
        """Whoever begins to read the objects from now on sees what is there now."""
        self.interception.cache.invalidate_many([str(name) for name in names])

    def _hear(self, passing: _Passing, headers: Any) -> None:
        wanted = passing.wanted
        fields = fields_of(headers, wanted.checksums, passing.sent_at)
        if fields is not None and not needs_key(headers):
            self.interception.table.put(wanted.who, wanted.name, fields)

    def _compare(self, passing: _Passing, http_response: Any, body: Any) -> None:
        comparison = Comparison(
            self.interception.cache,
            passing.wanted.name,
            http_response.headers,
            time.monotonic() - passing.sent_at,
        )
        body._raw_stream = self.beside(body._raw_stream, comparison)

    def beside(self, raw: Any, comparison: Comparison) -> Any:
        """A raw body that compares what is read of this one."""
        raise NotImplementedError
