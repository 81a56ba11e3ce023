"""A read that a signal's handler ends, at whatever bytecode, leaves no file, no Region and no lock.

Story: the files of blocks that a node passes are the client's to close. What a handler raised
between two bytecodes of their receipt left some open for good, and with them the space of evicted
files; a Region whose address was just being looked up could not be unmapped; and a gRPC channel
whose lock was just taken stood still for every thread. Held back, such an exception then waited for
as long as the node did, and a request that it had ended was sent again, and its node blamed.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from cachesvc_client import CacheClient
from cachesvc_client.interrupts import GivenUp, Held, Waiter
from cachesvc_client.lane import Lane

from cachesvc.core import memory
from tests.integration.inprocess import InProcessNode, running
from tests.integration.lane.sample import DATA
from tests.support import NAME, until

pytestmark = pytest.mark.usefixtures("copied_from_files")

SEED = 7
URI = str(NAME)
READS: dict[str, Callable[[CacheClient], bytes]] = {
    "read": lambda client: client.read(URI),
    "part": lambda client: client.read(URI, 70_000, 3_000_000),
}


class Alarm(Exception):
    """What the handler raises."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InProcessNode]:
    with running(tmp_path / "data", unix=tmp_path / "node.sock") as node:
        yield node


@pytest.fixture(autouse=True)
def _alarmed() -> Iterator[None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handle)
    print(f"seed {SEED}")
    yield
    signal.signal(signal.SIGALRM, before)


class Bytecodes:
    """Counts the bytecodes that this thread runs in some files; at one of them comes the alarm."""

    def __init__(self, *files: str, alarm_at: int = -1) -> None:
        self.count = 0
        self._files = files
        self._alarm_at = alarm_at

    @contextmanager
    def counted(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        if not any(one in frame.f_code.co_filename for one in self._files):
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, _frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "opcode":
            self.count += 1
            if self.count == self._alarm_at:
                signal.raise_signal(signal.SIGALRM)
        return self._step


def block_files(folder: Path) -> int:
    """How many descriptors of files in the folder this process has, the node's among them."""
    links = []
    for each in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{each}"))
        except FileNotFoundError:
            continue
    return sum(one.startswith(f"{folder}/blocks") for one in links)


def interrupt(work: Callable[[], object], files: tuple[str, ...], times: int) -> int:
    """Do it so many times, with an alarm at a bytecode drawn; how often that was raised."""
    whole = Bytecodes(*files)
    with whole.counted():
        work()
    rng, raised = random.Random(SEED), 0
    for _ in range(times):
        try:
            with Bytecodes(*files, alarm_at=rng.randrange(whole.count) + 1).counted():
                work()
        except Alarm:
            raised += 1
    gc.collect()
    return raised


@pytest.mark.parametrize("kind", READS)
def test_an_interrupted_read_of_files_closes_them(
    node: InProcessNode, tmp_path: Path, kind: str
) -> None:
    node.put(DATA)
    files = tuple(f"cachesvc_client/{each}" for each in ("connection", "lane", "passed"))
    with CacheClient(f"unix://{tmp_path}/node.sock") as client:
        want = READS[kind](client)
        held = block_files(node.directory)
        assert interrupt(lambda: READS[kind](client), files, 200) > 100
        assert block_files(node.directory) == held
        assert READS[kind](client) == want


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what is left closes itself, and says so
@pytest.mark.parametrize("lane", ["tcp", "unix"])
@pytest.mark.parametrize("idle", [True, False])
def test_an_interrupted_read_keeps_no_connection(
    node: InProcessNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lane: str,
    *,
    idle: bool,
) -> None:
    """Taken from the pool, or made, and not yet in the hands of who gives it back."""
    node.put(DATA)
    endpoint = f"unix://{tmp_path}/node.sock" if lane == "unix" else f"127.0.0.1:{node.lane_port}"

    def interrupted(*_: object) -> None:
        raise Alarm

    with CacheClient(endpoint) as client:
        assert client.read(URI) == DATA
        engine = client._engine
        assert engine is not None
        transport = engine._transport
        assert isinstance(transport, Lane)
        for _ in range(20):
            if idle:
                client.read(URI, 0, 9)
            else:
                transport.keep_to([])
                transport._idle.clear()
            with monkeypatch.context() as patched:
                patched.setattr(Lane, "_talk", interrupted)
                with pytest.raises(Alarm):
                    client.read(URI, 7, 4096)
        gc.collect()
        until(lambda: node.lane.connection_count <= 4, "the others are closed")
        assert not transport._busy
        assert client.read(URI) == DATA


def test_an_interrupted_look_at_an_address_holds_no_buffer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer, look = bytearray(100), memory._look

    def looked(*arguments: Any) -> None:
        look(*arguments)
        signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr(memory, "_look", looked)
    with pytest.raises(Alarm):
        memory.address_of(buffer)
    buffer.append(1)  # BufferError, if anybody still had it


def test_an_interrupted_read_over_grpc_leaves_its_channel_working(node: InProcessNode) -> None:
    node.put(DATA)
    with CacheClient(f"grpc://127.0.0.1:{node.grpc_port}") as client:
        assert client.read(URI, 0, 100_000) == DATA[:100_000]
        files = "cachesvc_client/rpc", "grpc/_channel", "grpc/_common", "threading"
        raised = interrupt(lambda: client.read(URI, 5, 200_000), files, 200)
        assert raised > 150
        assert client.read(URI) == DATA


@contextmanager
def alarm_once_flying(node: InProcessNode) -> Iterator[None]:
    """An alarm, once the node has asked its origin, which keeps it waiting until the end."""
    main = threading.get_ident()

    def send() -> None:
        until(lambda: node.origin.active_count > 0, "the GETs are under way")
        signal.pthread_kill(main, signal.SIGALRM)

    with node.origin.holding(node.runner):
        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            sender.join()


@pytest.mark.parametrize("lane", ["unix", "grpc"])
def test_an_interrupted_read_does_not_wait_for_the_node(
    node: InProcessNode, tmp_path: Path, lane: str
) -> None:
    node.put(DATA)
    grpc_endpoint = f"grpc://127.0.0.1:{node.grpc_port}"
    with CacheClient(f"unix://{tmp_path}/node.sock" if lane == "unix" else grpc_endpoint) as client:
        with alarm_once_flying(node), pytest.raises(Alarm):
            client.read(URI, 0, 1_000_000)
        assert client.read(URI) == DATA
        assert "direct" not in client.sources()


def test_a_request_that_was_given_up_is_not_sent_again_and_nobody_blamed(
    node: InProcessNode, tmp_path: Path
) -> None:
    """Within another `Held`, as a piece of a read by several threads is."""
    node.put(DATA)
    with CacheClient(f"unix://{tmp_path}/node.sock") as client:
        assert client.stat(URI).size == len(DATA)
        for _ in range(2):  # on the idle connection, and on a fresh one
            with (
                alarm_once_flying(node),
                pytest.raises(Alarm),
                Held(Waiter().leave),
                pytest.raises(GivenUp),
            ):
                client.read(URI, 0, 1_000_000)
            until(lambda: node.origin.active_count == 0, "the GETs are stopped")
        assert client.read(URI) == DATA
        assert "direct" not in client.sources()
