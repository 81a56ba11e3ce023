"""Bad block files, failing disks and defects under the lane: no wrong byte, and nobody hangs."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectName, ObjectVersion
from tests.integration.inprocess import HungUp, InProcessNode, RawClient
from tests.integration.lane.sample import DATA, END
from tests.support import NAME, until


def test_a_file_cut_short_during_sendfile_ends_the_connection_and_the_next_read_is_right(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    block = node.blocks(version)[1]
    with RawClient(node, receive_bytes=8192).greeted() as client:
        client.ask(ReadRequest(NAME, ((0, None),) * 20))  # more than any socket buffers
        client.receive(100_000)
        os.truncate(node.path_of(block), 500_000)
        with pytest.raises(HungUp):
            client.receive(20 * END)
    assert node.count("corrupt_blocks_total", check="length") == 1
    assert node.count("device_healthy", device=str(node.directory)) == 1
    with RawClient(node).greeted() as client:
        assert client.read() == DATA
        assert client.read() == DATA
    assert len(node.origin.gets) > 4


def test_a_file_cut_short_before_the_answer_ends_the_connection_once(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    os.truncate(node.path_of(node.blocks(version)[0]), 0)
    with RawClient(node).greeted() as client, pytest.raises(HungUp):
        client.read((0, 1 << 20))
    with RawClient(node).greeted() as client:
        assert client.read() == DATA


@pytest.mark.parametrize("small", [True, False])
def test_a_flipped_byte_is_never_taken_for_a_right_one(
    filled: tuple[InProcessNode, ObjectVersion], small: bool
) -> None:
    node, version = filled
    with node.path_of(node.blocks(version)[0]).open("r+b") as file:
        file.seek(20_000)
        file.write(bytes([DATA[20_000] ^ 1]))
    with RawClient(node).greeted() as client:
        if small:
            assert client.read((19_990, 20_010)) == DATA[19_990:20_010]
        else:
            client.ask(ReadRequest(NAME, ((0, 1 << 20),)))
            with pytest.raises(AssertionError):
                client.answer()  # the checksum tells
    with RawClient(node).greeted() as client:
        assert client.read((0, None), verify=True) == DATA
        assert client.read() == DATA
    assert node.count("corrupt_blocks_total", check="page") == 1


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EPIPE])
def test_a_network_that_fails_is_no_fault_of_the_disk(
    filled: tuple[InProcessNode, ObjectVersion], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = filled

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with RawClient(node).greeted() as client, monkeypatch.context() as patch:
        patch.setattr("cachesvc.lane_sending.os.sendfile", fail)
        with pytest.raises(HungUp):
            client.read()
    assert node.count("device_healthy", device=str(node.directory)) == 1
    with RawClient(node).greeted() as client:
        assert client.read() == DATA


def test_a_disk_that_fails_under_sendfile_goes_out_of_use_and_the_origin_serves(
    filled: tuple[InProcessNode, ObjectVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = filled

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with RawClient(node).greeted() as client, monkeypatch.context() as patch:
        patch.setattr("cachesvc.lane_sending.os.sendfile", fail)
        with pytest.raises(HungUp):
            client.read()
    assert node.count("device_healthy", device=str(node.directory)) == 0
    with RawClient(node).greeted() as client:
        assert client.read() == DATA


@pytest.mark.parametrize("kind", [ConnectionResetError, BrokenPipeError])
def test_an_origin_that_raises_a_bare_connection_error_hangs_nobody(
    node: InProcessNode, kind: type[OSError]
) -> None:
    node.put(DATA)

    async def before(op: str, name: ObjectName, wanted: Any) -> None:
        raise kind("from below")

    node.origin.before = before
    with RawClient(node).greeted() as client, pytest.raises(OSError, match="defect"):
        client.read()


def test_a_defect_in_a_hit_hangs_nobody(
    filled: tuple[InProcessNode, ObjectVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = filled
    hit, good = node.reader.hit, 0

    def broken(request: ReadRequest) -> Any:
        if request.ranges[0] == (0, 6):
            raise ZeroDivisionError
        return hit(request)

    monkeypatch.setattr(node.reader, "hit", broken)
    for good in (0, 5):
        with RawClient(node).greeted() as client:
            for _ in range(good):  # behind other requests, too
                client.ask(ReadRequest(NAME, ((0, None),)))
            client.ask(ReadRequest(NAME, ((0, 6),)))
            for _ in range(good):
                assert client.answer()[1] == DATA
            with pytest.raises(HungUp):
                client.answer()


def test_work_that_breaks_on_a_lane_thread_stops_nobody_else(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, _ = filled

    def broken() -> None:
        raise ZeroDivisionError

    for thread in node.lane._threads:
        for _ in range(3):
            thread.post(broken)
    with RawClient(node).greeted() as client:
        assert client.read() == DATA


def test_a_hit_that_cannot_be_framed_leaves_nothing_pinned(
    filled: tuple[InProcessNode, ObjectVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    node, _ = filled
    with monkeypatch.context() as patch:
        patch.setattr("cachesvc.lane.hit_items", broken)
        with RawClient(node).greeted() as client, pytest.raises(HungUp):
            client.read()
    until(lambda: node.pinned_count == 0, "nothing is pinned")
