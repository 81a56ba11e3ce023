"""A HEAD for the fields of one version is not shared by who was told another one meanwhile: its
answer left the origin before the object was overwritten.
"""

from __future__ import annotations

import asyncio

from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.gateway.fields import FieldTable
from cachesvc.gateway.lookup import Lookup
from cachesvc.origin.memory import MemoryOrigin
from cachesvc.versions import Checked, Versions
from tests.support import NAME, run

OLD, NEW = ObjectVersion(NAME, '"old"', 10), ObjectVersion(NAME, '"new"', 10)


class Keeper(Versions):
    """Told of versions by something else than a HEAD, as by a probe."""

    told = Checked(OLD, 1.0)

    def peek(self, name: ObjectName, max_age_s: float | None = None) -> Checked | None:
        return self.told


class Origin(MemoryOrigin):
    """Its HEADs answer with what was current when they were sent, once their version may `go`."""

    def __init__(self, table: FieldTable) -> None:
        super().__init__()
        self.current, self.sent_count, self.sent = OLD, 0, asyncio.Event()
        self.go = {OLD: asyncio.Event(), NEW: asyncio.Event()}
        self._table = table

    async def head(self, name: ObjectName, max_age_s: float = 0.0) -> ObjectVersion:
        self.sent_count += 1
        version, asked_at = self.current, float(self.sent_count)
        self.sent.set()
        await self.go[version].wait()
        self._table.hear(version, {"x-amz-meta-of": version.etag}, asked_at)
        return version


def test_fields_come_with_the_version_that_they_are_of() -> None:
    async def body() -> None:
        table = FieldTable()
        origin = Origin(table)
        keeper = Keeper(origin, 10.0)
        lookup = Lookup(origin, keeper, table)
        before = [asyncio.create_task(lookup.find(NAME)) for _ in range(2)]
        await origin.sent.wait()
        assert origin.sent_count == 1, "who asks for the same shares a HEAD"
        origin.current, keeper.told = NEW, Checked(NEW, 2.0)
        after = asyncio.create_task(lookup.find(NAME))
        await asyncio.sleep(0)
        origin.go[OLD].set()
        for task in before:
            assert dict((await task).fields) == {"x-amz-meta-of": OLD.etag}
        origin.go[NEW].set()
        found = await after
        assert found.version == NEW
        assert dict(found.fields) == {"x-amz-meta-of": NEW.etag}

    run(body)


def test_a_head_that_a_newer_one_overtook_is_no_object_without_fields() -> None:
    async def body() -> None:
        table = FieldTable()
        origin = Origin(table)
        keeper = Keeper(origin, 10.0)
        lookup = Lookup(origin, keeper, table)
        slow = asyncio.create_task(lookup.find(NAME))
        await origin.sent.wait()
        origin.current, keeper.told = NEW, Checked(NEW, 2.0)
        origin.go[NEW].set()
        assert (await lookup.find(NAME)).version == NEW
        origin.go[OLD].set()
        found = await slow
        assert found.version == NEW
        assert dict(found.fields) == {"x-amz-meta-of": NEW.etag}

    run(body)
