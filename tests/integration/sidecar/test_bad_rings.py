"""Whatever the nodes of a ring do, what lands is right: from the next node, or from S3."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from cachesvc_client.config import ClientConfig
from structlog.testing import capture_logs

from cachesvc.core.errors import CacheError, OriginError, Overloaded, Unauthenticated
from cachesvc.core.request import ReadRequest
from cachesvc.core.ring import MemberTable, Ring
from cachesvc.core.types import ByteRange, ObjectName
from cachesvc.metrics import Metrics
from cachesvc.origin.memory import Fault, MemoryOrigin
from cachesvc.origin.ring import RingOrigin, ring_config
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import Kind, encode
from tests.integration.client_lane.behaviours import (
    BAD,
    close_in_mid_body,
    error_in_mid_answer,
    flipped_byte,
    silent,
)
from tests.integration.client_lane.fake_node import Behaviour, Pair, Session, honest
from tests.integration.client_lane.sample import (
    DATA,
    GEOMETRY,
    NAME,
    PAGE,
    VERSION,
    answer,
    segment,
)
from tests.sinks import BufferSink, ProbeSink
from tests.support import run, soon

WHOLE = ByteRange(0, len(DATA))


class RightSink(BufferSink):
    """A sink whose bytes are the object's as far as they have landed, at every moment."""

    def landed(self, count_bytes: int) -> None:
        super().landed(count_bytes)
        assert self.buffer[:count_bytes] == DATA[:count_bytes]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as exits:
        yield Pair(exits)


Body = Callable[[RingOrigin, MemoryOrigin, Metrics], Awaitable[None]]


def origin_config(pair: Pair) -> ClientConfig:
    return ring_config(f"{pair.first.address},{pair.second.address}", "", 4, GEOMETRY)


def over(pair: Pair, body: Body, **settings: Any) -> None:
    """Run with a RingOrigin over the pair, and a store in memory behind it."""

    async def work() -> None:
        config = origin_config(pair)
        settings.setdefault("silence_ms", 150)
        config = replace(config, hello_timeout_ms=150, **settings)
        behind, metrics = MemoryOrigin(), Metrics()
        behind.put(NAME, DATA, VERSION.etag)
        origin = RingOrigin("sidecar-1", config, GEOMETRY, behind, metrics, 4)
        try:
            await origin.start()
            await body(origin, behind, metrics)
        finally:
            await origin.close()

    run(work)


@pytest.mark.parametrize("behaviour", BAD, ids=lambda one: one.__name__)
def test_whatever_a_node_does_the_next_one_is_asked_for_the_rest(
    pair: Pair, behaviour: Behaviour
) -> None:
    pair.first.behave = behaviour

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        for _ in range(2):
            sink = RightSink(len(DATA))
            await origin.fetch(VERSION, WHOLE, sink)
            assert sink.count_bytes == len(DATA)
            assert sink.peer
        found = ProbeSink(0, 1 << 20)
        assert await origin.probe(NAME, ByteRange(0, 1 << 20), found)
        assert found.buffer == DATA
        assert behind.log == []

    over(pair, body)


def test_what_s3_behind_a_ring_breaks_off_is_known_to_be_all(pair: Pair) -> None:
    pair.first.behave = pair.second.behave = silent

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        behind.before = lambda op, name, wanted: Fault(cut_after_bytes=3 * PAGE)
        sink = RightSink(len(DATA))
        with pytest.raises(OriginError):
            await origin.fetch(VERSION, WHOLE, sink)
        assert sink.break_offs[-1] == 3 * PAGE

    over(pair, body)


@pytest.mark.parametrize("behaviour", BAD, ids=lambda one: one.__name__)
def test_a_ring_that_is_wrong_or_gone_as_a_whole_is_gone_around(
    pair: Pair, behaviour: Behaviour
) -> None:
    pair.first.behave = pair.second.behave = behaviour

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        sink = RightSink(len(DATA))
        await origin.fetch(VERSION, WHOLE, sink)
        assert sink.count_bytes == len(DATA)
        assert [one.op for one in behind.log] in (["get"], []), "goes_on_after_the_end is right"

    over(pair, body)


def test_what_has_landed_is_not_asked_for_again(pair: Pair) -> None:
    def cut(session: Session, request: object) -> None:
        end = 3 * PAGE
        session.send(answer(ReadHead((segment(0, end),), VERSION), DATA[:end]))
        error_in_mid_answer(session, request)  # type: ignore[arg-type]  # it looks at none

    pair.first.behave = pair.second.behave = cut

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        sink = RightSink(len(DATA))
        await origin.fetch(VERSION, WHOLE, sink)
        assert sink.count_bytes == len(DATA)
        assert pair.first.requests[0].ranges == ((0, len(DATA)),)
        assert {one.ranges for one in pair.second.requests} == {((3 * PAGE, len(DATA)),)}
        assert set(sink.break_offs) == {3 * PAGE}
        assert [one.wanted for one in behind.log] == [ByteRange(3 * PAGE, len(DATA))]

    over(pair, body)


def test_a_probe_goes_on_with_the_version_that_it_found(pair: Pair) -> None:
    def half(session: Session, request: object) -> None:
        session.send(answer(ReadHead((segment(0, PAGE),), VERSION), DATA[:PAGE]))
        session.sock.shutdown(socket.SHUT_RDWR)

    pair.first.script = [half, half]

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        sink = ProbeSink(0, 1 << 20)
        assert await origin.probe(NAME, ByteRange(0, 1 << 20), sink, 5.0)
        assert sink.version == VERSION
        assert sink.buffer == DATA
        asked = pair.first.requests + pair.second.requests
        assert asked[0].version is None
        assert asked[0].max_age_s == 5.0
        assert all(one.version == VERSION for one in asked[1:])

    over(pair, body)


def test_wrong_bytes_are_counted(pair: Pair) -> None:
    pair.first.script = [flipped_byte]

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        await origin.fetch(VERSION, WHOLE, RightSink(len(DATA)))
        value = metrics.registry.get_sample_value
        labels = {"op": "read", "result": "wrong"}
        assert value("cachesvc_ring_requests_total", labels) == 1
        assert value("cachesvc_ring_bytes_total") == len(DATA)
        assert [one.verify for one in pair.first.requests] == [False, True]

    over(pair, body)


def test_a_fetch_that_nobody_wants_any_more_ends_at_once(pair: Pair) -> None:
    pair.first.behave = pair.second.behave = silent

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        sink = RightSink(len(DATA))
        fetch = asyncio.create_task(origin.fetch(VERSION, WHOLE, sink))
        await soon(lambda: bool(pair.first.requests), "the node was asked")
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        sink.free()
        pair.first.behave = honest
        sink = RightSink(len(DATA))
        await origin.fetch(VERSION, WHOLE, sink)
        assert pair.second.requests == [], "the node was not thought to be down"

    over(pair, body)


def test_a_ring_that_says_that_s3_fails_is_believed(pair: Pair) -> None:
    def failing(session: Session, request: object) -> None:
        message = codec.pack_error_head(OriginError("S3 is silent"))
        session.send(encode(Kind.READ_ANSWER, message.SerializeToString()))

    pair.first.behave = pair.second.behave = failing

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        origin._script.clock = count(0.0, 60.0).__next__  # all patience is over at once

        def refuse(op: str, name: ObjectName, wanted: ByteRange | None) -> Fault | None:
            raise Overloaded("not to be asked")

        behind.before = refuse
        with pytest.raises(CacheError, match=r"S3 is silent.*through the sidecar sidecar-1"):
            await origin.fetch(VERSION, WHOLE, RightSink(len(DATA)))
        assert len(pair.first.requests) + len(pair.second.requests) == 1

    over(pair, body)


def test_closing_ends_what_is_under_way(pair: Pair) -> None:
    pair.first.behave = pair.second.behave = silent

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        fetch = asyncio.create_task(origin.fetch(VERSION, WHOLE, RightSink(len(DATA))))
        await soon(lambda: bool(pair.first.requests), "the node was asked")
        await origin.close()
        with pytest.raises(CacheError):
            await fetch

    over(pair, body)


def test_the_ring_is_found_again_after_a_connection_was_cut(pair: Pair) -> None:
    pair.first.script = [close_in_mid_body]

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        for _ in range(2):
            sink = RightSink(len(DATA))
            await origin.fetch(VERSION, WHOLE, sink)
            assert sink.count_bytes == len(DATA)
        assert behind.log == []

    over(pair, body)


class ThreadSink(BufferSink):
    """A sink that knows who lands."""

    def landed(self, count_bytes: int) -> None:
        super().landed(count_bytes)
        assert threading.current_thread() is not threading.main_thread(), "the loop waits for disks"


def test_a_small_answer_lands_on_a_thread_and_not_on_the_loop(pair: Pair) -> None:
    def small(session: Session, request: ReadRequest) -> None:
        head = ReadHead((segment(0, 1000),), VERSION, last=True, epoch=session.node.epoch)
        session.send(answer(head, DATA[:1000]))

    pair.first.behave = small

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        sink = ThreadSink(1000)
        await origin.fetch(VERSION, ByteRange(0, 1000), sink)
        assert sink.buffer == DATA[:1000]
        assert sink.peer
        assert len(pair.first.requests) == 1

    over(pair, body)


def test_version_checks_that_wait_keep_no_fill_waiting(pair: Pair) -> None:
    nodes = pair.first, pair.second

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        for node in nodes:
            node.let_stats.clear()
        names = [ObjectName("b", f"cold{number}") for number in range(40)]
        checks = [asyncio.create_task(origin.head(name)) for name in names]
        await soon(lambda: sum(node.stat_count for node in nodes) >= 12, "checks wait")
        sink = RightSink(len(DATA))
        try:
            async with asyncio.timeout(5):
                await origin.fetch(VERSION, WHOLE, sink)
            assert sink.peer
        finally:
            for node in nodes:
                node.let_stats.set()
        assert {one.etag for one in await asyncio.gather(*checks)} == {VERSION.etag}

    over(pair, body, silence_ms=60_000)


def test_version_checks_beyond_the_most_are_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachesvc.origin.ring.MAX_CHECK_COUNT", 3)

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        pair.first.let_stats.clear()
        checks = [asyncio.create_task(origin.head(NAME)) for _ in range(3)]
        await soon(lambda: pair.first.stat_count == 3, "checks wait")
        with pytest.raises(Overloaded, match=r"b/k: 3 version checks.*sidecar-1"):
            await origin.head(NAME)
        pair.first.let_stats.set()
        await asyncio.gather(*checks)
        assert (await origin.head(NAME)).etag == VERSION.etag
        assert behind.log == []

    over(pair, body, silence_ms=60_000)


def refuse_token(pair: Pair) -> None:
    """From now on the ring wants another token."""
    for node in (pair.first, pair.second):
        node.error = codec.error_message(Unauthenticated("the token is wrong"))
        node.hang_up()


def test_a_ring_that_refuses_the_token_is_an_error_at_the_start(pair: Pair) -> None:
    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        refuse_token(pair)
        other = RingOrigin("sidecar-2", origin_config(pair), GEOMETRY, behind, metrics, 4)
        try:
            with pytest.raises(Unauthenticated, match="the token is wrong"):
                await other.start()
        finally:
            await other.close()

    over(pair, body)


def test_a_ring_that_refuses_the_token_later_fails_as_an_origin_does(pair: Pair) -> None:
    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        await origin.fetch(VERSION, WHOLE, RightSink(len(DATA)))
        refuse_token(pair)
        with capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(OriginError, match=r"ring refuses the token.*is wrong"):
                    await origin.fetch(VERSION, WHOLE, RightSink(len(DATA)))
                with pytest.raises(OriginError, match=r"ring refuses the token.*sidecar-1"):
                    await origin.head(NAME)
        assert [one["event"] for one in logs] == ["the ring refuses the token of this sidecar"]
        assert behind.log == []

    over(pair, body)


def test_the_log_tells_of_the_whole_ring_and_not_of_each_request(pair: Pair) -> None:
    def full(session: Session, request: ReadRequest) -> None:
        message = codec.pack_error_head(Overloaded("full"))
        session.send(encode(Kind.READ_ANSWER, message.SerializeToString()))

    table = Ring(MemberTable((pair.first.member, pair.second.member)))
    names = (ObjectName("b", f"key{number}") for number in count())
    other = next(one for one in names if table.owner(one, 0) == pair.second.member)
    pair.first.behave = full

    async def body(origin: RingOrigin, behind: MemoryOrigin, metrics: Metrics) -> None:
        behind.put(other, DATA)

        async def ask_both() -> None:
            for _ in range(5):
                await origin.fetch(VERSION, WHOLE, RightSink(len(DATA)))
                await origin.head(other)

        with capture_logs() as logs:
            await ask_both()
            assert len(behind.log) == 5, "of one of the two, no node could answer"
            assert logs == []
            pair.first.stop()
            pair.second.stop()
            await ask_both()
            assert len(behind.log) == 15
        assert [one["event"] for one in logs] == ["no node could answer; reading the origin itself"]

    over(pair, body, owner_tries=1)


def test_parts_smaller_than_a_block_are_no_settings_for_a_ring(pair: Pair) -> None:
    config = replace(origin_config(pair), origin_part_bytes=GEOMETRY.block_bytes - 1)
    with pytest.raises(AssertionError, match="one part"):
        RingOrigin("sidecar-1", config, GEOMETRY, MemoryOrigin(), Metrics(), 4)
