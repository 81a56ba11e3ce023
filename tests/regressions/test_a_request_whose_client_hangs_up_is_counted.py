"""A client that hangs up cancels its request; it was counted nowhere, also if it had its answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.gateway.outlet import SendThreads
from tests.integration.gateway.gate import GEOMETRY, Gate, gateway_over
from tests.support import pattern, until


def test_a_request_whose_client_hangs_up_is_counted(tmp_path: Path) -> None:
    for name in ("origin", "node"):
        (tmp_path / name).mkdir()
    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("bucket", "key", pattern(5 << 20))
        with gateway_over(origin.url, tmp_path / "node") as gate:
            assert gate.ask()[0] == 200
            with gate.connect() as connection:
                connection.sendall(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(100)
            until(lambda: _count(gate) >= 2, "both are counted")
            origin.faults = [Fault("slow_first_byte", method="*", delay_ms=60_000)]
            with gate.connect() as connection:
                connection.sendall(b"GET /bucket/other HTTP/1.1\r\nHost: x\r\n\r\n")
                until(lambda: gate.gateway._active_count == 1, "it is under way")
            until(lambda: _count(gate) == 3, "it is counted")
            assert gate.count("s3_requests_total", op="GetObject", code="gone") == 1
            origin.stop()


def test_who_hangs_up_with_the_last_byte_had_his_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was counted as `sent`, as if the client had left in mid-answer."""
    run = SendThreads.run

    async def late(threads: SendThreads, work: Callable[[], Any]) -> Any:
        """The client hangs up before the loop hears that all has left."""
        await run(threads, work)
        await asyncio.Event().wait()

    monkeypatch.setattr(SendThreads, "run", late)
    for name in ("origin", "node"):
        (tmp_path / name).mkdir()
    with DevOrigin(tmp_path / "origin") as origin:
        data = pattern(GEOMETRY.block_bytes)
        origin.put("bucket", "key", data)
        with gateway_over(origin.url, tmp_path / "node") as gate:
            read_to = GEOMETRY.block_bytes // 4  # what one segment of a cold read has
            status, _, found = gate.ask(headers={"Range": f"bytes=0-{read_to - 1}"})
            assert (status, found) == (206, data[:read_to])
            until(lambda: gate.count("s3_requests_total", op="GetObject", code="206") == 1, "206")
            assert gate.count("s3_requests_total", op="GetObject", code="sent") == 0
            assert gate.count("requests_total", op="read", result="error") == 0
        origin.stop()


def test_who_hangs_up_before_the_last_byte_had_not(tmp_path: Path) -> None:
    for name in ("origin", "node"):
        (tmp_path / name).mkdir()
    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("bucket", "key", pattern(24 << 20))  # more than sockets hold
        with gateway_over(origin.url, tmp_path / "node") as gate:
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect(gate.address)
                connection.sendall(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
            until(lambda: _count(gate) == 1, "it is counted")
            assert gate.count("s3_requests_total", op="GetObject", code="sent") == 1
            assert gate.count("requests_total", op="read", result="error") == 1
        origin.stop()


def _count(gate: Gate) -> float:
    codes = ("200", "sent", "gone", "500")
    return sum(gate.count("s3_requests_total", op="GetObject", code=code) for code in codes)
