"""Many processes on one host: one copy, no leak, and nobody falls over with anybody else."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cachesvc_client import CacheClient, CacheError

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.integration.unix.processes import Host, host
from tests.support import until

MIB = 1 << 20
DATA = random.Random(3).randbytes(64 * MIB)
URI = "s3://b/model"
NOBODY = 65_534

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("host")) as one:
        one.origin.put("b", "model", DATA)
        with one.client() as client, client.map(URI) as region:
            assert region[:] == DATA
        yield one


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    said = child.stdout.readline().strip()
    if not said:
        child.kill()
        raise AssertionError(child.communicate()[1])
    return said


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def shared_bytes(pid: int, folder: Path) -> int:
    """The process's proportional share (PSS) of what it has mapped of the files in the folder."""
    total, ours = 0, False
    for row in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", row):
            ours = f" {folder}/" in row
        elif ours and row.startswith("Pss:"):
            total += int(row.split()[1]) << 10
    return total


def test_eight_processes_hold_one_copy(shared: Host) -> None:
    code = f"region = cache.map({URI!r})\nsay(len(region))\nsys.stdin.read()\n"
    children = [shared.python(code) for _ in range(8)]
    try:
        assert [line(child) for child in children] == [str(len(DATA))] * 8
        shares = [shared_bytes(child.pid, shared.node.data) for child in children]
    finally:
        for child in children:
            end(child)
    assert 0.99 * len(DATA) <= sum(shares) <= 1.1 * len(DATA)


def test_killed_clients_leave_nothing_open_on_the_node(shared: Host) -> None:
    with shared.client() as client:
        assert client.read(URI) == DATA
        before = shared.open_count()
    code = f"""
import threading
def work():
    while True:
        cache.map({URI!r}).close()
        cache.read({URI!r}, 0, 20 << 20)
        say("round")
for _ in range(4):
    threading.Thread(target=work).start()
"""
    for _ in range(5):
        child = shared.python(code)
        line(child)
        line(child)
        end(child)
    until(lambda: shared.open_count() <= before, "the node has closed all that it opened")
    with shared.client() as client, client.map(URI) as region:
        assert region[:] == DATA


def test_a_client_that_may_open_few_files_gets_bytes(shared: Host) -> None:
    code = f"""
import hashlib, os, resource
cache.stat({URI!r})
cache.read({URI!r}, 0, 5)
limit = len(os.listdir("/proc/self/fd")) + 1
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
digests = [hashlib.sha256(cache.read({URI!r}, 0, 30 << 20)).hexdigest()]
digests.append(hashlib.sha256(cache.map({URI!r}, 0, 30 << 20)).hexdigest())
say(digests[0] == digests[1], digests[0], limit)
say(len(os.listdir("/proc/self/fd")) <= limit)
"""
    child = shared.python(code)
    try:
        expected = hashlib.sha256(DATA[: 30 * MIB]).hexdigest()
        assert line(child).split()[:2] == ["True", expected]
    finally:
        end(child)


def test_a_process_with_little_address_space_is_told_so(shared: Host) -> None:
    code = f"""
import resource
from cachesvc_client import RegionRefused, limits
cache.read({URI!r}, 0, 1 << 20)
taken = limits._taken_bytes()
resource.setrlimit(resource.RLIMIT_AS, (taken + (40 << 20), resource.RLIM_INFINITY))
for check in limits.check, lambda *_: None:
    limits.check = check
    try:
        cache.map({URI!r})
    except RegionRefused as error:
        say(error)
with cache.map({URI!r}, 0, 8 << 20) as part:
    say(len(part))
"""
    child = shared.python(code)
    try:
        assert re.search(r"does not fit .*RLIMIT_AS.*ulimit -v.*map\(uri, start", line(child))
        assert re.search(r"no room for a Region .*ulimit -v", line(child))
        assert line(child) == str(8 * MIB)
    finally:
        end(child)


def test_a_process_with_too_many_mappings_is_told_so(shared: Host) -> None:
    code = f"""
import mmap
from cachesvc_client import RegionRefused
cache.map({URI!r}).close()
kept = []
try:
    while True:  # neighbours of different access are not joined
        access = mmap.PROT_READ if len(kept) % 2 else mmap.PROT_READ | mmap.PROT_WRITE
        kept.append(mmap.mmap(-1, 4096, prot=access))
except OSError:
    del kept[-5:]
try:
    cache.map({URI!r})
except RegionRefused as error:
    kept.clear()
    say(error)
say(len(cache.map({URI!r})))
"""
    most = int(Path("/proc/sys/vm/max_map_count").read_text())
    if most > 1 << 17:
        pytest.skip(f"a process may have {most} mappings here")
    child = shared.python(code)
    try:
        assert re.search(r"no more room to map .*vm.max_map_count .*map\(uri, start", line(child))
        assert line(child) == str(len(DATA))
    finally:
        end(child)


def test_a_forked_child_reads_on(shared: Host) -> None:
    code = f"""
import os
regions = [cache.map({URI!r}), cache.map({URI!r}, 1)]
digests = [hash(bytes(region)) for region in regions]
child = os.fork()
if child == 0:
    good = [hash(bytes(region)) for region in regions] == digests
    good = good and hash(bytes(cache.map({URI!r}))) == digests[0]
    os._exit(0 if good else 1)
status = os.waitpid(child, 0)[1]
say(status, hash(bytes(cache.map({URI!r}))) == digests[0])
"""
    child = shared.python(code)
    try:
        assert line(child) == "0 True"
    finally:
        end(child)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_even_where_the_file_lets_him(shared: Host) -> None:
    shared.path.chmod(0o666)
    code = f"""
import os
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
try:
    cache.read({URI!r}, 0, 5)
except Exception as error:
    say(type(error).__name__, error)
"""
    child = shared.python(code)
    try:
        said = line(child)
    finally:
        end(child)
    assert said.startswith(f"AccessDenied user {NOBODY} may not use this node's Unix socket")


def test_a_region_outlives_the_node(tmp_path: Path) -> None:
    with host(tmp_path) as here:
        here.origin.put("b", "model", DATA)
        with here.client() as client:
            region = client.map(URI)
            here.node.kill()
            assert region[:] == DATA
            with client.map(URI) as received:  # from the origin itself
                assert received[:] == DATA
            assert client.sources()["direct"] == len(DATA)
            here.node.start()  # finds the file that it left, and replaces it
            here.node.ready()
        with here.client() as client, client.map(URI) as again:
            assert again[:] == DATA
            assert client.sources() == {"disk": len(DATA)}
        assert here.node.terminate() == 0
        assert not here.path.exists()
        assert region[:] == DATA


def test_blocks_of_other_members_come_over_tcp(tmp_path: Path) -> None:
    with host(tmp_path, 3) as here:
        here.origin.put("b", "model", DATA)
        with here.client() as client:
            for _ in range(2):
                with client.map(URI) as region:
                    assert region[:] == DATA
                    own = sum("node-0" in owners[0] for _, owners in client.where(URI))
                    files = [
                        row
                        for row in Path("/proc/self/maps").read_text().splitlines()
                        if f" {here.node.data}/" in row
                    ]
                    assert 0 < own < 8
                    assert len(files) == own
            assert client.read(URI, 5) == DATA[5:]
            assert len(client.ring().members) == 3
            here.node.kill()
            assert client.read(URI) == DATA
            with client.map(URI) as region:
                assert region[:] == DATA


def test_two_nodes_of_one_host_are_both_reached_by_their_sockets(tmp_path: Path) -> None:
    with DevOrigin(tmp_path) as origin:
        origin.put("b", "model", DATA)
        cluster = Cluster(tmp_path, origin.url, 2)
        for number, node in enumerate(cluster.nodes):
            node.options += ("--unix", str(tmp_path / f"s{number}"))
        endpoint = f"{cluster.endpoint},unix://{tmp_path}/s0,unix://{tmp_path}/s1"
        with cluster, CacheClient(endpoint) as client, client.map(URI) as region:
            assert region[:] == DATA
            rows = Path("/proc/self/maps").read_text().splitlines()
            assert sum(f" {tmp_path}/" in row for row in rows) == 8


def test_a_second_node_on_a_live_socket_does_not_start(shared: Host, tmp_path: Path) -> None:
    second = Cluster(tmp_path, shared.origin.url, 1, ("--unix", str(shared.path)))
    with pytest.raises(AssertionError, match="in use by a live node"), second:
        pass
    with shared.client() as client:
        assert client.read(URI, 0, 5) == DATA[:5]


def test_an_endpoint_where_nobody_listens_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none"
    with CacheClient(f"unix://{path}") as client, pytest.raises(CacheError, match=str(path)):
        client.ring()
