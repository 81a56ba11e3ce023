"""Clients of the gRPC service that go away, or take nothing, leave nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from cachesvc.origin.base import BypassStream
from cachesvc.wire import codec
from tests.integration.inprocess import InProcessNode, running
from tests.integration.service.calls import failure, read, request_of, stat_of, stubs
from tests.integration.service.sample import DATA
from tests.support import until


def test_a_client_that_cancels_a_cold_read_stops_its_fill(node: InProcessNode, stub: Any) -> None:
    version = node.put(DATA)
    with node.origin.holding(node.runner):
        call = stub.Read(request_of(version=codec.pack_version(version)))
        until(lambda: node.origin.active_count > 0, "the GETs are under way")
        call.cancel()
        until(lambda: node.origin.active_count == 0, "the GETs are stopped")
    assert node.store.stored_count == 0


@pytest.mark.parametrize("taken_count", [0, 1, 2])
@pytest.mark.parametrize("kind", ["hit", "miss", "bypass"])
def test_a_client_that_leaves_in_mid_answer_leaves_no_pin(
    node: InProcessNode, stub: Any, taken_count: int, kind: str
) -> None:
    data = DATA * 8  # more than a connection takes ahead
    node.put(data)
    if kind == "hit":
        assert read(stub) == data
    for _ in range(5):
        call = stub.Read(request_of(bypass=kind == "bypass"))
        for _ in range(taken_count):
            next(call)
        call.cancel()
    until(lambda: not node.service._turns, "the calls have ended")
    until(node.quiet, "nothing is held")
    assert read(stub, (0, 99)) == data[:99]


@pytest.mark.parametrize("bypass", [False, True])
def test_an_answer_whose_client_left_before_its_first_byte_is_given_back(
    node: InProcessNode, bypass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(DATA)
    with stubs(node) as stub:
        assert read(stub) == DATA
    closed: list[bool] = []
    opening = node.origin.stream

    @asynccontextmanager
    async def stream(*asked: Any) -> AsyncIterator[BypassStream]:
        async with opening(*asked) as opened:
            try:
                yield opened
            finally:
                closed.append(True)

    monkeypatch.setattr(node.origin, "stream", stream)

    class Context:
        """A call whose client has just said goodbye."""

        def invocation_metadata(self) -> tuple[()]:
            return ()

        def peer(self) -> str:
            return "test"

        def add_callback(self, _callback: object) -> bool:
            return True

    answer = node.service._read(request_of(bypass=bypass), Context())  # type: ignore[arg-type]
    next(iter(answer))
    answer.close()  # type: ignore[attr-defined]
    assert node.pinned_count == 0
    assert closed == [True] * bypass


def test_a_stat_that_its_client_gave_up_is_no_defect(node: InProcessNode, stub: Any) -> None:
    node.put(DATA)
    with capture_logs() as logs, node.origin.holding(node.runner):
        call = stub.Stat.future(stat_of())
        until(lambda: len(node.origin.log) == 1, "the HEAD is sent")
        call.cancel()
        until(lambda: node.count("requests_total", op="stat", result="error") == 1, "it ended")
        assert failure(lambda: stub.Stat(stat_of(), timeout=0.05))[0] is (
            grpc.StatusCode.DEADLINE_EXCEEDED
        )
        until(lambda: node.count("requests_total", op="stat", result="error") == 2, "it ended")
    assert read(stub, (0, 9)) == DATA[:9]
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


def test_a_client_that_takes_nothing_for_too_long_is_hung_up_on(tmp_path: Path) -> None:
    with running(tmp_path, stall_s=0.3) as node, stubs(node) as stub:
        data = DATA * 8
        node.put(data)
        assert read(stub) == data
        call = stub.Read(request_of())
        next(call)
        until(lambda: not node.service._turns, "it is hung up on")
        until(node.quiet, "nothing is held")
        call.cancel()
