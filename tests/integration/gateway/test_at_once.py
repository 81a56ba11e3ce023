"""Hot reads are found by the event loop itself, unless a disk would have to be waited for; and how
many may be connected.
"""

from __future__ import annotations

import errno

import pytest

from cachesvc.disk.nvme import NvmeFile
from cachesvc.gateway import reading, server
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate
from tests.support import until

SPANS = [(0, 4095), (5, 100_000), (1_000_000, 1_100_000), (0, len(DATA) - 1)]


def _ask(gate: Gate, first: int, last: int) -> None:
    status, headers, body = gate.ask(headers={"Range": f"bytes={first}-{last}"})
    assert (status, headers["x-cache"], body) == (206, "HIT", DATA[first : last + 1])


def test_what_is_open_and_in_memory_is_read_without_a_thread(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(work: object) -> None:
        raise AssertionError(f"a thread for {work}")

    assert gate.ask()[2] == DATA
    until(lambda: gate.ask()[1]["x-cache"] == "HIT", "all is stored and open")
    monkeypatch.setattr(reading, "on_a_thread", refused)
    monkeypatch.setattr(NvmeFile, "pread", lambda file, n, at, **_: _read(file, n, at))
    for span in SPANS:
        _ask(gate, *span)


def test_what_is_not_in_memory_is_read_on_a_thread(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def pread(file: NvmeFile, size_bytes: int, offset: int, *, wait: bool = True) -> bytes:
        if not wait:
            refused.append(offset)
            raise BlockingIOError(errno.EAGAIN, "not all of it is in memory")
        return _read(file, size_bytes, offset)

    assert gate.ask()[2] == DATA
    until(lambda: gate.ask()[1]["x-cache"] == "HIT", "all is stored and open")
    monkeypatch.setattr(NvmeFile, "pread", pread)
    for span in SPANS:
        _ask(gate, *span)
    assert refused
    assert gate.count("corrupt_blocks_total", what="page") == 0


def _read(file: NvmeFile, size_bytes: int, offset: int) -> bytes:
    data = bytearray(size_bytes)
    return bytes(data[: file.readinto(memoryview(data), offset)])


def test_a_connection_too_many_is_told_so_and_closed(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTION_COUNT", 2)
    request = b"HEAD /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n"
    with gate.connect() as first, gate.connect() as second:
        for held in (first, second):
            held.sendall(request)
            assert held.recv(12) == b"HTTP/1.1 200"
        with gate.connect() as third:
            assert third.makefile("rb").read().startswith(b"HTTP/1.1 503 Slow Down\r\n")
    until(lambda: gate.ask(method="HEAD")[0] == 200, "those who left made room")
