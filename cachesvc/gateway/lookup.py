"""What the gateway says of an object before its bytes: the version, and the origin's header fields.

Story: the keeper of versions is asked as on any lane. Mostly its HEAD or probe was heard by the
FieldTable too; where it was not (the version was learned otherwise, a probe knows of no checksums,
or the entry has left), one HEAD more asks for the fields, which all who ask meanwhile share, if
theirs is the same check of the same version.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cachesvc.core.errors import ObjectChanged
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.gateway.fields import Fields, FieldTable
from cachesvc.origin.base import Origin
from cachesvc.versions import Checked, Versions

TRIES = 4


@dataclass(frozen=True, slots=True)
class Found:
    """A version and what the origin said with it."""

    version: ObjectVersion
    fields: Fields


class Lookup:
    """Versions with their fields, on the event loop."""

    def __init__(self, origin: Origin, versions: Versions, table: FieldTable) -> None:
        self._origin = origin
        self._versions = versions
        self._table = table
        self._heads: dict[Checked, asyncio.Task[Fields | None]] = {}

    def known(self, name: ObjectName, *, checksums: bool = False) -> Found | None:
        """What `find` would find without asking anybody."""
        checked = self._versions.peek(name)
        if checked is None or checked.version is None:
            return None
        fields = self._table.of(checked, checksums=checksums)
        return None if fields is None else Found(checked.version, fields)

    async def find(self, name: ObjectName, *, checksums: bool = False) -> Found:
        """The object as it was at some moment within the node's `revalidate`. checksums: its fields
        shall have them.

        Raises: ObjectNotFound, AccessDenied, OriginError, Overloaded, ObjectChanged (it is being
        overwritten all the time).
        """
        for _ in range(TRIES):
            checked = self._versions.peek(name) or await self._versions.get(name)
            assert checked.version is not None
            fields = await self.fields(checked, checksums=checksums)
            if fields is not None:
                return Found(checked.version, fields)
            self._versions.forget(checked.version)
        raise ObjectChanged(f"{name}: its version changed {TRIES} times while it was looked up")

    async def fields(self, checked: Checked, *, checksums: bool = False) -> Fields | None:
        """What the origin said with a checked version; None: it has another one now.

        Raises: as `find`, but for ObjectChanged.
        """
        fields = self._table.of(checked, checksums=checksums)
        return await self._head(checked) if fields is None else fields

    async def _head(self, checked: Checked) -> Fields | None:
        """The fields by a HEAD; None if it was of another version, or a younger one was heard."""
        assert checked.version is not None
        task = self._heads.get(checked)
        if task is None:
            task = self._heads[checked] = asyncio.ensure_future(self._ask(checked.version))
            task.add_done_callback(lambda _: self._heads.pop(checked, None))
        return await asyncio.shield(task)

    async def _ask(self, version: ObjectVersion) -> Fields | None:
        current = await self._origin.head(version.name)
        if not current.same_bytes(version):
            return None
        return self._table.of(Checked(current, 0.0), checksums=True)
