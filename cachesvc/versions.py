"""The keeper of versions: which version of an object is the current one, and how sure we are.

Story: the owner of an object's block 0 is asked first; it answers from here if its last look at the
origin is young enough, else with one HEAD, which all who ask meanwhile share. Of an object that
nobody here knows, the head of a probe tells (flight.Probe), in place of the HEAD; if it can't, a
HEAD follows. The age of an answer counts from the moment its HEAD or probe was sent, so "at most
max_age old" means: this version was current at some moment no earlier than max_age before the call.
A HEAD that was sent too early for a caller is waited for and not believed: the caller joins the
next one.

A sidecar's origin, the ring, answers with checks of its own. They may use up `age_share` of the age
that the caller allows (`allowance_s`), and are dated as if they had; so two layers of memory keep
within one bound. They are never older than the last word against the object (`forget`): what was
denied or written since is asked of the object store itself.

Rules: a 404 is remembered for a short time, other failures never; the tables are bounded, the
oldest entry leaves first.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cachesvc.core.errors import CacheError, ObjectNotFound, Overloaded
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.flight import Probe
from cachesvc.origin.base import Origin

MAX_ENTRY_COUNT = 200_000
MAX_HEAD_COUNT = 4096
MAX_NOT_FOUND_AGE_S = 1.0
MAX_ALLOWANCE_S = 1e9  # finite, so that ages can be reckoned with


@dataclass(frozen=True, slots=True)
class Checked:
    """What the origin said of an object. `checked_at` is the clock when it was asked, less what it
    was allowed to be old; version None: a 404.
    """

    version: ObjectVersion | None
    checked_at: float


class _Look:
    """A question to the origin under way. max_age_s: how old its answer may be. seen_at: the answer
    is no older than this; inf while a probe waits for its turn.
    """

    __slots__ = ("_seen_at", "asker_count", "max_age_s", "probe", "task")

    def __init__(self, probe: Probe | None, max_age_s: float) -> None:
        self.probe = probe
        self.max_age_s = max_age_s if probe is None else probe.max_age_s
        self.asker_count = 0
        self.task: asyncio.Task[Checked] | None = None
        self._seen_at = float("inf")

    @property
    def seen_at(self) -> float:
        return self._seen_at if self.probe is None else self.probe.sent_at - self.max_age_s

    def send_head(self, now: float) -> None:
        """No probe, or none that told: a HEAD is sent now."""
        self.probe, self._seen_at = None, now - self.max_age_s


class Versions:
    """The versions known to one node. `revalidate_s` is the default bound on age: 0 always asks,
    inf never again.

    `peek` may be called from any thread; the rest belongs to the event loop.
    """

    def __init__(
        self,
        origin: Origin,
        revalidate_s: float,
        clock: Callable[[], float] = time.monotonic,
        max_entry_count: int = MAX_ENTRY_COUNT,
    ) -> None:
        self.revalidate_s = revalidate_s
        self._origin = origin
        self.clock = clock
        self._max_entry_count = max_entry_count
        self._entries: OrderedDict[ObjectName, Checked] = OrderedDict()
        self._looks: dict[ObjectName, _Look] = {}
        self._denied: OrderedDict[ObjectName, float] = OrderedDict()  # when, of late
        self._all_denied_at = float("-inf")  # as if all had been, of which that is not known

    def peek(self, name: ObjectName, max_age_s: float | None = None) -> Checked | None:
        """A look at the table alone: an existing version, young enough, or None."""
        checked = self._entries.get(name)
        if checked is None or checked.version is None:
            return None
        limit_s = self._limit_s(max_age_s)
        return checked if limit_s > 0 and self.clock() - checked.checked_at <= limit_s else None

    def unknown(self, name: ObjectName) -> bool:
        """Whether there is nothing in the table, and no question under way."""
        return name not in self._entries and name not in self._looks

    async def get(
        self, name: ObjectName, max_age_s: float | None = None, probe: Probe | None = None
    ) -> Checked:
        """The version of an object, checked no earlier than `max_age_s` before this call.

        probe: of an `unknown` object, begun for this very call. Cancelling leaves a shared HEAD
        running for the others.

        Raises: ObjectNotFound, AccessDenied, OriginError, Overloaded.
        """
        asked_at = self.clock() if probe is None else min(self.clock(), probe.sent_at)
        limit_s = self._limit_s(max_age_s)
        known = self._entries.get(name)
        if known is not None and known.version is None:
            limit_s = min(limit_s, MAX_NOT_FOUND_AGE_S)
        if known is None or limit_s <= 0 or asked_at - known.checked_at > limit_s:
            known = await self._ask(name, asked_at, limit_s, probe)
        if known.version is None:
            raise not_found(name)
        return known

    def fresh_for_s(self, checked: Checked) -> float:
        """How long the check still counts under the default bound."""
        return max(0.0, self.revalidate_s - (self.clock() - checked.checked_at))

    def allowance_s(self, name: ObjectName, max_age_s: float | None = None) -> float:
        """How old an answer of the origin may be, for a caller who allows a check this age."""
        if not self._origin.age_share:
            return 0.0
        share_s = min(self._limit_s(max_age_s) * self._origin.age_share, MAX_ALLOWANCE_S)
        denied_at = self._denied.get(name, self._all_denied_at)
        return min(share_s, self.clock() - denied_at)

    def forget(self, version: ObjectVersion) -> None:
        """The origin has denied this version: whoever asks next must look again."""
        self._deny(version.name)
        known = self._entries.get(version.name)
        if known is not None and known.version is not None and known.version.same_bytes(version):
            del self._entries[version.name]

    def forget_object(self, name: ObjectName) -> None:
        """The object was written: whoever asks from now on must look again. A look that is under
        way answers those who wait for it, and nobody after them.
        """
        self._deny(name)
        self._entries.pop(name, None)
        self._looks.pop(name, None)

    def _deny(self, name: ObjectName) -> None:
        if not self._origin.age_share:
            return
        self._denied[name] = self.clock()
        self._denied.move_to_end(name)
        if len(self._denied) > self._max_entry_count:
            _, self._all_denied_at = self._denied.popitem(last=False)

    def _limit_s(self, max_age_s: float | None) -> float:
        return self.revalidate_s if max_age_s is None else min(max_age_s, self.revalidate_s)

    async def _ask(
        self, name: ObjectName, asked_at: float, limit_s: float, probe: Probe | None
    ) -> Checked:
        not_before = asked_at - limit_s
        while True:
            look = self._looks.get(name) or self._start(name, probe, limit_s)
            assert look.task is not None
            probe = None
            look.asker_count += 1
            try:
                if look.seen_at >= not_before:
                    checked = await asyncio.shield(look.task)
                    if checked.checked_at >= not_before:  # a probe that waited may let it be older
                        return checked
                else:
                    await asyncio.wait([look.task])
            finally:
                look.asker_count -= 1

    def _start(self, name: ObjectName, probe: Probe | None, limit_s: float) -> _Look:
        if len(self._looks) >= MAX_HEAD_COUNT:
            raise Overloaded(f"{name}: {MAX_HEAD_COUNT} version checks are under way, the most")
        look = _Look(probe, self.allowance_s(name, limit_s))
        if probe is None:
            look.send_head(self.clock())
        look.task = asyncio.get_running_loop().create_task(self._look(name, look))
        look.task.add_done_callback(_noticed)
        self._looks[name] = look
        return look

    async def _look(self, name: ObjectName, look: _Look) -> Checked:
        try:
            try:
                version = await self._probed(name, look)
                version = version or await self._origin.head(name, look.max_age_s)
                checked = Checked(version, look.seen_at)
            except ObjectNotFound:
                checked = Checked(None, look.seen_at)
            if self._looks.get(name) is look:
                self._entries[name] = checked
                self._entries.move_to_end(name)
                while len(self._entries) > self._max_entry_count:
                    self._entries.popitem(last=False)
            return checked
        except CacheError as error:
            raise error.with_traceback(None) from None
        finally:
            if self._looks.get(name) is look:
                del self._looks[name]

    async def _probed(self, name: ObjectName, look: _Look) -> ObjectVersion | None:
        """What the probe tells; else a HEAD is to be sent, if there is anybody left who asks."""
        if look.probe is None:
            return None
        version = await look.probe.head()
        if version is None:
            if not look.asker_count:
                raise Overloaded(f"{name}: the version check was called off; try again")
            look.send_head(self.clock())
        return version


def _noticed(task: asyncio.Task[Checked]) -> None:
    """A HEAD whose askers all left may fail: asyncio shall not call that forgotten."""
    if not task.cancelled():
        task.exception()


def not_found(name: ObjectName) -> ObjectNotFound:
    """The error for an object that the origin does not have."""
    return ObjectNotFound(f"{name}: the origin has no such bucket or key")
