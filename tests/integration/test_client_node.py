"""The client against real nodes and a development origin, each node a process of its own.

Every byte is compared; what the origin was asked for is counted from its log.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cachesvc_client import (
    CacheClient,
    ClientClosed,
    ObjectChanged,
    ObjectNotFound,
    RangeError,
    Unauthenticated,
)

from cachesvc.devorigin import DevOrigin
from cachesvc.devorigin.ports import free_ports
from tests.support import until

MIB = 1 << 20
DATA = random.Random(7).randbytes(20 * MIB + 12_345)
SMALL = b"a small object"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
NODES = 3

pytestmark = pytest.mark.slow


@dataclass
class Ring:
    """Nodes as processes over one origin."""

    origin: DevOrigin
    folder: Path
    options: tuple[str, ...] = ()
    ports: list[int] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self) -> None:
        self.ports = free_ports(3 * NODES)
        for number in range(NODES):
            self.processes.append(self.spawn(number))
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", self.log()

    def spawn(self, number: int) -> subprocess.Popen[str]:
        lane, grpc, admin = self.ports[number::NODES]
        command = [
            sys.executable, "-m", "cachesvc.cli", "node", "--node-id", f"n{number}",
            "--data-dir", str(self.folder / f"n{number}"), "--capacity", "256MiB",
            "--lane", f"127.0.0.1:{lane}", "--grpc", f"127.0.0.1:{grpc}",
            "--admin", f"127.0.0.1:{admin}", "--members", self.endpoint,
            "--origin-endpoint", self.origin.url, *self.options,
        ]  # fmt: skip
        environment = dict(os.environ, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
        with (self.folder / f"n{number}.log").open("a") as log:
            return subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )

    @property
    def endpoint(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports[:NODES])

    @property
    def grpc_endpoint(self) -> str:
        return "grpc://" + ",".join(f"127.0.0.1:{port}" for port in self.ports[NODES : 2 * NODES])

    def client(self, **settings: Any) -> CacheClient:
        return CacheClient(
            self.endpoint, origin={"endpoint_url": self.origin.url, **KEYS}, **settings
        )

    def grpc_client(self) -> CacheClient:
        return CacheClient(self.grpc_endpoint, origin={"endpoint_url": self.origin.url, **KEYS})

    def kill(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.communicate()
        self.processes.clear()

    def log(self) -> str:
        return "\n".join(file.read_text() for file in self.folder.glob("*.log"))


@contextlib.contextmanager
def running(folder: Path, *options: str) -> Iterator[Ring]:
    (folder / "objects").mkdir()
    with DevOrigin(folder / "objects") as origin:
        origin.put("b", "big", DATA)
        origin.put("b", "small", SMALL)
        origin.put("b", "empty", b"")
        ring = Ring(origin, folder, options)
        try:
            ring.start()
            yield ring
        finally:
            ring.stop()


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    with running(tmp_path_factory.mktemp("ring")) as made:
        yield made


@pytest.mark.parametrize("lane", ["tcp", "grpc"])
def test_cold_and_hot_reads_are_equal(ring: Ring, lane: str) -> None:
    ring.origin.put("b", f"cold-{lane}", DATA)
    with ring.client() if lane == "tcp" else ring.grpc_client() as client:
        uri = f"s3://b/cold-{lane}"
        assert client.read(uri) == DATA
        ring.origin.clear_log()
        assert client.read(uri) == DATA
        assert (
            client.read(uri, 8 * MIB - 5, 8 * MIB + 70_000) == DATA[8 * MIB - 5 : 8 * MIB + 70_000]
        )
        assert client.read(uri, 19 * MIB) == DATA[19 * MIB :]
        assert [one for one in ring.origin.requests if one.method == "GET"] == []
        assert "direct" not in client.sources()

        def all_from_disk() -> bool:
            before = client.sources().get("disk", 0)
            assert client.read(uri) == DATA
            return client.sources().get("disk", 0) - before == len(DATA)

        until(all_from_disk, "the store has caught up with the fill")


def test_a_small_object_is_one_round_trip(ring: Ring) -> None:
    with ring.client() as client:
        assert client.read("s3://b/small") == SMALL
        assert client.read("s3://b/small", 2, 7) == SMALL[2:7]
        assert client.read("s3://b/small", 5, 5) == b""
        assert client.read("s3://b/small", 2, 10**9) == SMALL[2:]
        assert client.read("s3://b/small", len(SMALL)) == b""
        assert client.read("s3://b/empty") == b""
        assert client.stat("s3://b/small").size == len(SMALL)


def test_readinto_fills_the_buffer_of_the_caller(ring: Ring) -> None:
    buffer = bytearray(9 * MIB)
    with ring.client() as client:
        assert client.readinto("s3://b/big", buffer, 5 * MIB) == len(buffer)
        assert buffer == DATA[5 * MIB : 14 * MIB]
        assert client.readinto("s3://b/big", buffer, len(DATA) - 10) == 10
        assert buffer[:10] == DATA[-10:]
        assert client.readinto("s3://b/big", bytearray()) == 0


def test_ranges_come_in_the_order_given(ring: Ring) -> None:
    ranges = [(12 * MIB, 12 * MIB + 3), (0, 10), (5, 20), (7, 7), (16 * MIB - 1, None)]
    with ring.client() as client:
        found = client.read_ranges("s3://b/big", ranges)
        assert found == [DATA[start:end] for start, end in ranges]
        many = [(at, at + 100) for at in range(0, len(DATA) - 100, 9_973)]
        assert client.read_ranges("s3://b/big", many) == [DATA[s:e] for s, e in many]


def test_a_file_seeks_and_reads(ring: Ring) -> None:
    with ring.client() as client, client.open("s3://b/big", "rb") as file:
        assert file.read(100) == DATA[:100]
        assert file.seek(-50, io.SEEK_END) == len(DATA) - 50
        assert file.read() == DATA[-50:]
        assert file.read() == b""
        file.seek(7 * MIB)
        buffer = bytearray(3 * MIB)
        assert file.readinto(buffer) == len(buffer)
        assert buffer == DATA[7 * MIB : 10 * MIB]
        file.seek(0)
        assert file.read() == DATA


def test_errors_are_those_of_files(ring: Ring) -> None:
    with ring.client() as client:
        with pytest.raises(FileNotFoundError, match="s3://b/missing"):
            client.read("s3://b/missing")
        with pytest.raises(ObjectNotFound):
            client.open("s3://b/missing")
        with pytest.raises(RangeError, match=str(len(SMALL))):
            client.read("s3://b/small", 100)
        with pytest.raises(RangeError):
            client.read("s3://b/big", len(DATA) + 1)
        with pytest.raises(ValueError, match="negative or reversed"):
            client.read("s3://b/small", 5, 2)
        with pytest.raises(ObjectNotFound):
            client.read("s3://b/missing", 3, 3)
        with pytest.raises(ValueError, match="write by fsspec"):
            client.open("s3://b/big", "wb")


def test_many_threads_share_a_client(ring: Ring) -> None:
    dice = random.Random(3)
    spans = [(at, at + dice.randrange(1, 3 * MIB)) for at in (dice.randrange(17 * MIB),) * 1]
    spans += [(at, at + dice.randrange(300_000)) for at in dice.sample(range(len(DATA)), 200)]
    with ring.client() as client, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda span: client.read("s3://b/big", *span), spans))
    assert found == [DATA[start:end] for start, end in spans]


def read_in_child(client: CacheClient, start: int, end: int) -> None:
    os._exit(0 if client.read("s3://b/big", start, end) == DATA[start:end] else 3)


def in_child(client: CacheClient) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            read_in_child(client, 3 * MIB, 12 * MIB)
        finally:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_file_is_read_on_in_a_forked_child_with_a_position_of_its_own(ring: Ring) -> None:
    with ring.client() as client, client.open("s3://b/big") as file:
        assert file.read(10) == DATA[:10]
        pid = os.fork()
        if pid == 0:
            try:
                right = file.read(3 * MIB) == DATA[10 : 10 + 3 * MIB]
                right = right and file.seek(-5, 2) == len(DATA) - 5 and file.read() == DATA[-5:]
                os._exit(0 if right else 3)
            finally:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert file.tell() == 10
        assert file.read() == DATA[10:]


@pytest.mark.parametrize("lane", ["tcp", "grpc"])
def test_a_child_forked_while_the_parent_reads_can_read_and_the_parent_goes_on(
    ring: Ring, lane: str
) -> None:
    with ring.client() if lane == "tcp" else ring.grpc_client() as client:
        assert client.read("s3://b/big") == DATA
        stop, wrong = threading.Event(), []

        def keep_reading() -> None:
            while not stop.is_set():
                if client.read("s3://b/big", MIB, 10 * MIB) != DATA[MIB : 10 * MIB]:
                    wrong.append("bytes")

        threads = [threading.Thread(target=keep_reading) for _ in range(2)]
        for thread in threads:
            thread.start()
        codes = [in_child(client) for _ in range(5)]
        stop.set()
        for thread in threads:
            thread.join()
        assert codes == [0] * 5
        assert wrong == []
        assert client.read("s3://b/big") == DATA
        assert "direct" not in client.sources()


def test_a_pickled_client_reads_in_a_spawned_process(ring: Ring) -> None:
    with ring.client() as client:
        assert client.read("s3://b/small") == SMALL
        with pickle.loads(pickle.dumps(client)) as twin:
            assert twin.config == client.config
            assert twin.read("s3://b/small") == SMALL
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(read_small, (client,)) == SMALL


def read_small(client: CacheClient) -> bytes:
    with client:
        return client.read("s3://b/small")


def test_an_open_file_stays_with_its_version(ring: Ring) -> None:
    ring.origin.put("b", "moving", DATA[: 9 * MIB])
    with ring.client() as client, client.open("s3://b/moving") as file:
        assert file.read(10) == DATA[:10]
        ring.origin.put("b", "moving", DATA[9 * MIB : 18 * MIB])
        file.seek(8 * MIB + 500_000)
        with pytest.raises(ObjectChanged):
            file.read(4 * MIB)
        assert client.read("s3://b/moving") == DATA[9 * MIB : 18 * MIB]


def test_where_and_ring_name_the_nodes(ring: Ring) -> None:
    with ring.client() as client:
        assert [member.node_id for member in client.ring().members] == ["n0", "n1", "n2"]
        blocks = client.where("s3://b/big")
        assert [index for index, _ in blocks] == [0, 1, 2]
        assert all(sorted(owners) == ["n0", "n1", "n2"] for _, owners in blocks)


def test_close_ends_the_reads_of_other_threads(ring: Ring) -> None:
    client = ring.client()
    raised: list[BaseException] = []

    def keep_reading() -> None:
        try:
            while True:
                client.read("s3://b/big")
        except BaseException as error:
            raised.append(error)

    assert client.read("s3://b/small") == SMALL
    thread = threading.Thread(target=keep_reading)
    thread.start()
    while not client.sources().get("disk", 0) > len(DATA):
        pass
    client.close()
    thread.join()
    assert [type(error) for error in raised] == [ClientClosed]
    with pytest.raises(ClientClosed, match="closed"):
        client.read("s3://b/small")


@pytest.mark.parametrize("lane", ["tcp", "grpc"])
def test_all_nodes_killed_the_client_reads_from_s3(tmp_path: Path, lane: str) -> None:
    with running(tmp_path) as ring:
        with ring.client() if lane == "tcp" else ring.grpc_client() as client:
            assert client.read("s3://b/big", 0, 100) == DATA[:100]
            ring.kill()
            assert client.read("s3://b/big") == DATA
            assert client.read("s3://b/small") == SMALL
            assert client.read("s3://b/empty") == b""
            assert client.read_ranges("s3://b/big", [(0, 5), (9 * MIB, 9 * MIB + 5)]) == [
                DATA[:5],
                DATA[9 * MIB : 9 * MIB + 5],
            ]
            with pytest.raises(ObjectNotFound):
                client.read("s3://b/missing")
            with pytest.raises(RangeError):
                client.read("s3://b/small", 100)
            assert client.sources()["direct"] > len(DATA)
        with ring.client() as never_met:
            ring.origin.clear_log()
            assert never_met.read("s3://b/small", 2, 9) == SMALL[2:9]
            assert len(ring.origin.requests) == 1
            assert never_met.read("s3://b/big") == DATA


@pytest.mark.parametrize("lane", ["tcp", "grpc"])
def test_a_wrong_token_is_refused_by_name(tmp_path: Path, lane: str) -> None:
    secret = tmp_path / "token"
    secret.write_text("right")
    with running(tmp_path, "--token-file", str(secret)) as ring:
        endpoint = ring.endpoint if lane == "tcp" else ring.grpc_endpoint
        with CacheClient(endpoint, token="right") as client:
            assert client.read("s3://b/small") == SMALL
        for token in ("wrong", None):
            with (
                CacheClient(endpoint, token=token) as client,
                pytest.raises(Unauthenticated, match="token"),
            ):
                client.read("s3://b/small")
