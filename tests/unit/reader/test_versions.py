"""Versions in a read: one from first to last byte."""

from __future__ import annotations

import pytest

from cachesvc.answer import take
from cachesvc.core.errors import ObjectChanged
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectVersion
from tests.support import NAME, blocks_of, open_rig, read_of, received, run, taken_bytes
from tests.unit.reader.sample import DATA, END, fill


def test_an_overwrite_is_seen_after_the_revalidation_time() -> None:
    async def body() -> None:
        async with open_rig(revalidate_s=5.0) as rig:
            await fill(rig)
            rig.origin.put(NAME, DATA[::-1])
            assert await rig.read() == DATA
            rig.clock.now += 5.1
            assert await rig.read() == DATA[::-1]

    run(body)


def test_an_overwrite_during_a_read_is_object_changed_and_never_a_mixture() -> None:
    async def body() -> None:
        async with open_rig(revalidate_s=1e9, max_gets=1) as rig:
            rig.origin.put(NAME, DATA)
            answer = await rig.reader.read(read_of())
            segment = await take(answer)
            assert segment is not None
            assert taken_bytes(segment, 128) == DATA[: segment.length_bytes]
            segment.close()
            rig.origin.put(NAME, DATA[::-1])
            with pytest.raises(ObjectChanged):
                await received(answer)
            assert await rig.read() == DATA[::-1]  # the old version is not believed any more

    run(body)


def test_a_pinned_version_is_read_while_it_is_stored_and_gone_afterwards() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            old = await fill(rig)
            rig.origin.put(NAME, DATA[::-1])
            request = ReadRequest(NAME, ((0, None),), old)
            answer = await rig.reader.read(request)
            assert b"".join(data for _, data in await received(answer)) == DATA
            for block in blocks_of(old)[:1]:
                pin = rig.store.pin(block)
                assert pin is not None
                rig.store.drop(pin, "page")
                pin.close()
            with pytest.raises(ObjectChanged):
                await received(await rig.reader.read(request))

    run(body)


def test_a_version_that_lies_about_its_size_gets_no_bytes() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            for size_bytes in (END - 1, END + 1, 100):
                lie = ObjectVersion(NAME, version.etag, size_bytes)
                with pytest.raises(ObjectChanged):
                    await received(await rig.reader.read(ReadRequest(NAME, ((0, 50),), lie)))

    run(body)
