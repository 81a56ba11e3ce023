"""Calls that are opened and not used: how long they hold a thread of the gRPC service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cachesvc.answer import Segment
from cachesvc.service import CALL_THREADS
from tests.integration.inprocess import InProcessNode, running
from tests.integration.service.calls import channel, failure, read, stubs
from tests.integration.service.sample import DATA
from tests.support import PATIENCE_S, until

CACHE = "/cachesvc.wire.v1.Cache/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/"


@pytest.fixture(autouse=True)
def _swept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachesvc.service.SWEEP_INTERVAL_S", 0.02)


@contextmanager
def silent() -> Iterator[Iterator[bytes]]:
    """Requests of which none comes, until the end."""
    over = threading.Event()

    def none() -> Iterator[bytes]:
        over.wait(PATIENCE_S)
        yield from ()

    try:
        yield none()
    finally:
        over.set()


def opened(wire: grpc.Channel, method: str, requests: Iterator[bytes]) -> Any:
    """A call of which the node has seen the headers."""
    return wire.stream_stream(method, None, None)(requests, timeout=PATIENCE_S)


def end_of(call: Any) -> grpc.StatusCode:
    return failure(lambda: list(call))[0]


@pytest.mark.parametrize(
    "method", [*(CACHE + name for name in ("Hello", "Stat", "Forget", "Read")), HEALTH + "Check"]
)
def test_who_opens_a_call_and_asks_for_nothing_is_hung_up_on(tmp_path: Path, method: str) -> None:
    with running(tmp_path, request_s=0.05) as node, channel(node) as wire, silent() as requests:
        assert end_of(opened(wire, method, requests)) is grpc.StatusCode.CANCELLED
        until(lambda: not node.service._turns, "nothing is left of it")


def test_a_call_that_ends_without_a_request_is_told_so(node: InProcessNode) -> None:
    with channel(node) as wire:
        found = end_of(opened(wire, CACHE + "Stat", iter(())))
        assert found is grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_that_asks_for_nothing_more_is_hung_up_on(tmp_path: Path) -> None:
    with running(tmp_path, stall_s=0.3) as node, channel(node) as wire, silent() as requests:
        assert end_of(opened(wire, REFLECTION, requests)) is grpc.StatusCode.CANCELLED


def test_who_has_no_token_is_refused_before_he_asks_for_anything(tmp_path: Path) -> None:
    with running(tmp_path, token="a" * 20) as node, channel(node) as wire:
        for method in CACHE + "Read", CACHE + "Stat", REFLECTION:
            with silent() as requests:
                assert end_of(opened(wire, method, requests)) is grpc.StatusCode.UNAUTHENTICATED


def test_as_many_unused_calls_as_there_are_threads_shut_the_door_for_a_while(
    tmp_path: Path,
) -> None:
    with running(tmp_path, request_s=1.0) as node, ExitStack() as exits:
        node.put(DATA)
        wire = exits.enter_context(channel(node))
        requests = [exits.enter_context(silent()) for _ in range(CALL_THREADS)]
        calls = [opened(wire, CACHE + "Read", each) for each in requests]
        until(lambda: len(node.service._turns) > CALL_THREADS // 2, "most of them hold a thread")
        ends = {end_of(call) for call in calls}
        assert ends <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        with stubs(node) as stub:
            assert read(stub) == DATA


def test_nobody_can_watch_the_health_for_good(node: InProcessNode) -> None:
    with channel(node) as wire:
        stub = health_pb2_grpc.HealthStub(wire)
        asked = health_pb2.HealthCheckRequest()
        assert stub.Check(asked).status is health_pb2.HealthCheckResponse.SERVING
        assert end_of(stub.Watch(asked, timeout=PATIENCE_S)) is grpc.StatusCode.UNIMPLEMENTED


def test_who_is_told_that_his_bytes_are_pending_must_take_that(
    node: InProcessNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window of no bytes blocks the first message that says so."""
    monkeypatch.setattr("cachesvc.service.PENDING_INTERVAL_S", 0.01)
    never = asyncio.Event()

    class Context:
        def add_callback(self, _callback: object) -> bool:
            return True

    async def work() -> Segment | None:
        await never.wait()
        return None

    call = node.service._call(Context())  # type: ignore[arg-type]
    call.turn.patience_s = 0.0
    telling = node.service._patiently(call, work())
    next(telling)
    until(lambda: call.turn.missed, "he has let his turn pass")
    node.runner.loop.call_soon_threadsafe(never.set)
    for _ in telling:
        until(lambda: call.turn.missed, "he has let his turn pass")
