"""What every Origin does alike: the one in memory, S3 over devorigin, S3 over moto, a ring over S3,
and S3 where the ring is gone.

Story: `OriginContract` holds the tests; each subclass says how to make an origin with a bucket and
how to put an object there. moto is somebody else's S3, so that our two ends can't agree on the same
mistake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cachesvc.app import open_node
from cachesvc.config import load
from cachesvc.core.errors import NotCacheable, ObjectChanged, ObjectNotFound, RangeError
from cachesvc.core.types import ByteRange, Geometry, ObjectName, ObjectVersion
from cachesvc.devorigin import DevOrigin
from cachesvc.devorigin.ports import free_ports
from cachesvc.metrics import Metrics
from cachesvc.origin.base import Origin
from cachesvc.origin.memory import MemoryOrigin
from cachesvc.origin.ring import RingOrigin, ring_config
from cachesvc.origin.s3 import S3Origin, S3Settings
from tests.moto_server import running_moto
from tests.sinks import BufferSink, ProbeSink

BUCKET = "bucket"
DATA = bytes(i * 7 % 251 for i in range(700_001))  # no period that a page or segment could hide
ODD_KEYS = [
    "a b c",
    "a+b",
    "a%2Fb",
    "%",
    "ünïcödé/日本語/🦊",
    "a?b&c=d#e;f",
    "quote\"'<>`{}|^~[]@:!$*(),=",
    "trailing/",
    "k" * 1024,
    "é" * 512,
    *("a//b", "//a", "/a", "a/../b", "../a", "a/./b", "..", "a/..", "."),
]
_END = len(DATA)
FETCHED = [(0, _END), (0, 1), (_END - 1, _END), (1, _END), (0, _END - 1), (65_535, 65_537)]
STREAMED: list[tuple[int, int | None]] = [
    *((0, None), (0, 1), (10, 20), (600_000, 10**9), (_END - 1, None)),
    *((_END, None), (_END, _END + 10), (5, 5), (0, 0)),
]


Put = Callable[[str, bytes], None]
Body = Callable[[Origin, Put], Awaitable[None]]


class OriginContract:
    """Subclass it with `opened`."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Origin, Put]]:
        raise NotImplementedError
        yield

    def run(self, body: Body) -> None:
        async def main() -> None:
            async with self.opened() as (origin, put):
                await body(origin, put)

        asyncio.run(main())

    def test_head_tells_size_etag_and_time(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            version = await origin.head(ObjectName(BUCKET, "key"))
            assert version.size_bytes == len(DATA)
            assert version.cacheable
            assert version.last_modified_ms > 1_600_000_000_000

        self.run(body)

    def test_fetch_lands_the_range_and_nothing_else(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            version = await origin.head(ObjectName(BUCKET, "key"))
            for start, end in FETCHED:
                sink = BufferSink(end - start)
                await origin.fetch(version, ByteRange(start, end), sink)
                assert sink.buffer == DATA[start:end], (start, end)
                assert sink.landings[-1] == end - start

        self.run(body)

    def test_probe_tells_the_version_and_lands_what_it_has_of_the_range(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            version = await origin.head(ObjectName(BUCKET, "key"))
            for start, end in [*FETCHED, (0, 1 << 23), (_END - 1, 1 << 23)]:
                sink = ProbeSink(start, end)
                assert await origin.probe(version.name, ByteRange(start, end), sink)
                assert sink.version == version
                assert sink.buffer == DATA[start:end], (start, end)
                assert sink.landings[-1] == len(sink.buffer)

        self.run(body)

    def test_probe_proves_nothing_where_nothing_is(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("empty", b"")
            put("short", b"0123456789")
            for key, start in (("empty", 0), ("short", 10), ("short", 1000)):
                sink = ProbeSink(start, start + 100)
                wanted = ByteRange(start, start + 100)
                assert not await origin.probe(ObjectName(BUCKET, key), wanted, sink)
                assert sink.version is None
                assert not sink.landings
            with pytest.raises(ObjectNotFound, match="s3://bucket/other"):
                await origin.probe(
                    ObjectName(BUCKET, "other"), ByteRange(0, 100), ProbeSink(0, 100)
                )

        self.run(body)

    def test_fetch_frees_the_buffer(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            version = await origin.head(ObjectName(BUCKET, "key"))
            sink = BufferSink(len(DATA))
            await origin.fetch(version, ByteRange(0, len(DATA)), sink)
            sink.view.release()
            sink.buffer.clear()  # BufferError if anything still held it

        self.run(body)

    def test_an_overwritten_version_is_object_changed(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            version = await origin.head(ObjectName(BUCKET, "key"))
            put("key", DATA[::-1])
            sink = BufferSink(100)
            with pytest.raises(ObjectChanged, match="s3://bucket/key"):
                await origin.fetch(version, ByteRange(0, 100), sink)
            assert not sink.landings
            assert sink.buffer == bytes(100)

        self.run(body)

    def test_a_version_that_has_shrunk_is_object_changed(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            version = await origin.head(ObjectName(BUCKET, "key"))
            put("key", b"short")
            with pytest.raises(ObjectChanged):
                await origin.fetch(version, ByteRange(1000, 2000), BufferSink(1000))

        self.run(body)

    def test_what_is_not_there_is_object_not_found(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            for name in (ObjectName(BUCKET, "other"), ObjectName("no-such-bucket", "key")):
                version = ObjectVersion(name, '"etag"', 10)
                with pytest.raises(ObjectNotFound, match=str(name)):
                    await origin.head(name)
                with pytest.raises(ObjectNotFound, match=str(name)):
                    await origin.fetch(version, ByteRange(0, 10), BufferSink(10))
                with pytest.raises(ObjectNotFound, match=str(name)):
                    async with origin.stream(name, 0, None):
                        pass
            with pytest.raises(ObjectNotFound, match="no-such-bucket"):
                await origin.list("no-such-bucket", "", "", None, 10)

        self.run(body)

    def test_no_strong_etag_no_fetch(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            for etag in ("", 'W/"weak"', '""', "bare"):
                version = ObjectVersion(ObjectName(BUCKET, "key"), etag, len(DATA))
                with pytest.raises(NotCacheable, match="s3://bucket/key"):
                    await origin.fetch(version, ByteRange(0, 10), BufferSink(10))

        self.run(body)

    def test_stream_gives_the_range_cut_to_the_end(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            name = ObjectName(BUCKET, "key")
            version = await origin.head(name)
            for start, end in STREAMED:
                async with origin.stream(name, start, end) as opened:
                    got = b"".join([chunk async for chunk in opened.chunks])
                assert got == DATA[start:end], (start, end)
                assert opened.version.same_bytes(version)
                assert opened.wanted.length_bytes == len(got)

        self.run(body)

    def test_stream_left_early_leaves_the_origin_usable(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", DATA)
            name = ObjectName(BUCKET, "key")
            for _ in range(3):
                async with origin.stream(name, 0, None) as opened:
                    async for chunk in opened.chunks:
                        assert DATA.startswith(chunk)
                        break
            assert (await origin.head(name)).size_bytes == len(DATA)

        self.run(body)

    def test_stream_refuses_ranges_that_are_none(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("key", b"0123456789")
            for start, end in ((11, None), (11, 12), (-1, None), (5, 4)):
                with pytest.raises(RangeError, match="s3://bucket/key"):
                    async with origin.stream(ObjectName(BUCKET, "key"), start, end):
                        pass

        self.run(body)

    def test_an_empty_object_streams_nothing(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            put("empty", b"")
            name = ObjectName(BUCKET, "empty")
            assert (await origin.head(name)).size_bytes == 0
            for end in (None, 0, 100):
                async with origin.stream(name, 0, end) as opened:
                    assert [chunk async for chunk in opened.chunks] == []
                    assert opened.version.size_bytes == 0

        self.run(body)

    def test_list_goes_page_by_page_and_finds_each_key_once(self) -> None:
        keys = sorted((f"p/{i:02}+ü %2F" for i in range(23)), key=str.encode)

        async def body(origin: Origin, put: Put) -> None:
            put("other", b"x")
            for key in keys:
                put(key, key.encode())
            found: list[ObjectVersion] = []
            token, pages = None, 0
            while pages == 0 or token is not None:
                page = await origin.list(BUCKET, "p/", "", token, 5)
                assert len(page.versions) <= 5
                found += page.versions
                token, pages = page.next_token, pages + 1
            assert [version.name.key for version in found] == keys
            assert found[3].same_bytes(await origin.head(ObjectName(BUCKET, keys[3])))
            assert pages == 5

        self.run(body)

    def test_list_rolls_up_at_the_delimiter(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            for key in ("a", "b/1", "b/2", "c d/x/y", "e"):
                put(key, b"x")
            page = await origin.list(BUCKET, "", "/", None, 100)
            assert [version.name.key for version in page.versions] == ["a", "e"]
            assert page.prefixes == ["b/", "c d/"]
            assert page.next_token is None
            empty = await origin.list(BUCKET, "zzz", "/", None, 100)
            assert (empty.versions, empty.prefixes, empty.next_token) == ([], [], None)

        self.run(body)

    def test_odd_keys_are_read_as_they_are(self) -> None:
        async def body(origin: Origin, put: Put) -> None:
            for position, key in enumerate(ODD_KEYS):
                put(key, DATA[position:1000])
            for position, key in enumerate(ODD_KEYS):
                name = ObjectName(BUCKET, key)
                version = await origin.head(name)
                assert version.size_bytes == 1000 - position, key
                sink = BufferSink(100)
                await origin.fetch(version, ByteRange(0, 100), sink)
                assert sink.buffer == DATA[position : position + 100], key
                async with origin.stream(name, 1, 3) as opened:
                    got = b"".join([chunk async for chunk in opened.chunks])
                assert got == DATA[position + 1 : position + 3], key
            listed = await origin.list(BUCKET, "", "", None, 1000)
            found = [version.name.key for version in listed.versions]
            assert found == sorted(ODD_KEYS, key=str.encode)

        self.run(body)


class TestMemoryOrigin(OriginContract):
    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Origin, Put]]:
        origin = MemoryOrigin(chunk_bytes=10_000)
        yield origin, lambda key, data: _nothing(origin.put(ObjectName(BUCKET, key), data))
        await origin.close()


class TestS3OriginOverDevOrigin(OriginContract):
    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        (tmp_path / "origin").mkdir()
        with DevOrigin(tmp_path / "origin") as self.server:
            yield

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Origin, Put]]:
        origin = S3Origin(S3Settings(endpoint_url=self.server.url), Metrics())
        try:
            yield origin, lambda key, data: _nothing(self.server.put(BUCKET, key, data))
        finally:
            await origin.close()


class TestRingOrigin(OriginContract):
    node_count = 1

    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        (tmp_path / "origin").mkdir()
        self.directory = tmp_path
        with DevOrigin(tmp_path / "origin") as self.server:
            yield

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Origin, Put]]:
        lane, grpc, admin = (f"127.0.0.1:{port}" for port in free_ports(3))
        places = {"lane": lane, "grpc": grpc, "admin": admin, "origin_endpoint": self.server.url}
        config = load(places | {"data_dir": str(self.directory / "node")})
        async with AsyncExitStack() as exits:
            for _ in range(self.node_count):
                await open_node(config, exits)
            s3 = S3Origin(S3Settings(endpoint_url=self.server.url), Metrics())
            exits.push_async_callback(s3.close)
            ring = ring_config(lane, "", 4, Geometry())
            origin = RingOrigin("sidecar-1", ring, Geometry(), s3, Metrics(), 4)
            exits.push_async_callback(origin.close)
            yield origin, lambda key, data: _nothing(self.server.put(BUCKET, key, data))


class TestRingOriginWhoseRingIsGone(TestRingOrigin):
    node_count = 0


@pytest.fixture(scope="module")
def moto() -> Iterator[tuple[str, Any]]:
    """The address of a moto server, and a client of boto3 to put objects there."""
    import boto3

    with running_moto() as url:
        client: Any = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="nobody",
            aws_secret_access_key="nothing",
        )
        client.create_bucket(Bucket=BUCKET)
        yield url, client
        client.close()


class TestS3OriginOverMoto(OriginContract):
    @pytest.fixture(autouse=True)
    def _emptied(self, moto: tuple[str, Any]) -> Iterator[None]:
        self.url, self.s3 = moto
        yield
        for entry in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
            self.s3.delete_object(Bucket=BUCKET, Key=entry["Key"])

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Origin, Put]]:
        def put(key: str, data: bytes) -> None:
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=data)

        origin = S3Origin(S3Settings(endpoint_url=self.url), Metrics())
        try:
            yield origin, put
        finally:
            await origin.close()


def _nothing(_: object) -> None:
    return None
