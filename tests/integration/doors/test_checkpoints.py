"""Checkpoints through a node: the right bytes, only those that are wanted, without a copy."""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from cachesvc_client import CacheClient, ObjectNotFound
from cachesvc_client.tensors import CorruptCheckpoint, load_state_dict, open_safetensors
from cachesvc_client.tensors.shard import HEAD_BYTES

from cachesvc.core.types import ObjectName
from tests.integration.doors.checkpoints import made, numbers
from tests.integration.inprocess import InProcessNode
from tests.support import pattern

numpy = pytest.importorskip("numpy", reason="numpy is not installed")

URI = "s3://models/llm/model.safetensors"
INDEX = "s3://models/llm/model.safetensors.index.json"
TENSORS = {
    "embed": numbers(1000, 300, 1),
    "scale": ("F64", [], pattern(8, 2)),
    "nothing": ("F32", [0, 4], b""),
    "layer.0": numbers(1025, 256, 3),
    "layer.1": numbers(7, 11, 4),
}


def put(node: InProcessNode, uri: str, data: bytes) -> None:
    node.put(data, ObjectName.parse(uri))


def array(name: str) -> Any:
    dtype, shape, data = TENSORS[name]
    return numpy.frombuffer(data, {"I32": "<i4", "F64": "<f8", "F32": "<f4"}[dtype]).reshape(shape)


@pytest.fixture
def whole(node: InProcessNode) -> None:
    put(node, URI, made(TENSORS, {"format": "pt"}))


@pytest.mark.usefixtures("whole")
def test_all_tensors_are_what_the_file_holds(client: CacheClient) -> None:
    with open_safetensors(URI, client=client) as checkpoint:
        assert list(checkpoint) == list(TENSORS)
        assert checkpoint.metadata() == {"format": "pt"}
        loaded = checkpoint.load()
        for name in TENSORS:
            assert loaded[name].tobytes() == TENSORS[name][2]
            assert checkpoint[name].tobytes() == TENSORS[name][2]
            assert loaded[name].shape == array(name).shape
        assert not loaded["embed"].flags.writeable
        assert loaded["embed"].base is not None


@pytest.mark.usefixtures("whole")
def test_only_what_is_wanted_is_fetched(client: CacheClient) -> None:
    checkpoint = open_safetensors(URI, client=client, names=["layer.1", "scale"])
    header_bytes = sum(client.sources().values())
    assert list(checkpoint) == ["scale", "layer.1"]
    loaded = checkpoint.load()
    assert numpy.array_equal(loaded["layer.1"], array("layer.1"))
    fetched_bytes = sum(client.sources().values()) - header_bytes
    assert fetched_bytes <= 8 + len(TENSORS["layer.1"][2]) + 4 * 4096
    with pytest.raises(KeyError, match=r"no tensor 'layer.0' .* did you mean 'layer.1'"):
        checkpoint["layer.0"]
    with pytest.raises(KeyError, match=r"did you mean 'layer.0'"):
        open_safetensors(URI, client=client, names=["layr.0"])


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_the_rows_of_the_ranks_are_the_tensor(client: CacheClient, world_size: int) -> None:
    before = sum(client.sources().values())
    parts = [
        open_safetensors(URI, client=client, rank=rank, world_size=world_size).load()
        for rank in range(world_size)
    ]
    for name in ("embed", "layer.0", "layer.1", "nothing"):
        assert numpy.array_equal(numpy.concatenate([part[name] for part in parts]), array(name))
        cut = numpy.array_split(array(name), world_size)
        assert [len(part[name]) for part in parts] == [len(one) for one in cut]
    assert all(part["scale"].tobytes() == TENSORS["scale"][2] for part in parts)
    fetched_bytes = sum(client.sources().values()) - before
    whole_bytes = sum(len(data) for _, _, data in TENSORS.values())
    # of each rank: its header, and between its ranges what costs less than another range
    assert fetched_bytes < whole_bytes + world_size * (HEAD_BYTES + 2 * (64 << 10) + 6 * 4096)


@pytest.mark.usefixtures("whole")
def test_a_slice_fetches_the_rows_that_it_touches(client: CacheClient) -> None:
    checkpoint = open_safetensors(URI, client=client)
    before = sum(client.sources().values())
    part = checkpoint.get_slice("layer.0")
    assert part.get_shape() == [1025, 256]
    assert part.get_dtype() == "I32"
    assert sum(client.sources().values()) == before
    assert numpy.array_equal(part[500:510, 3], array("layer.0")[500:510, 3])
    assert sum(client.sources().values()) - before <= 10 * 256 * 4 + 2 * 4096
    wanted = array("layer.0")
    for index in (
        3, -1, slice(None), slice(5, 2), slice(-9, None, 4), slice(40, 10, -3), ..., None, (),
        (slice(2, 9), slice(None, None, 50)), (7, 7), (..., 2), [1, 5, 9], (slice(1, 4), ..., 0),
    ):  # fmt: skip
        assert numpy.array_equal(part[index], wanted[index]), index
    for row in (1025, -1026):
        with pytest.raises(IndexError, match="has 1025 rows"):
            part[row]
    assert checkpoint.get_slice("scale")[()] == checkpoint["scale"]


def test_tensors_outlive_the_checkpoint_and_the_object(
    node: InProcessNode, client: CacheClient
) -> None:
    put(node, URI, made(TENSORS))
    with open_safetensors(URI, client=client) as checkpoint:
        embed = checkpoint["embed"]
    put(node, URI, made({"embed": numbers(3, 3, 9)}))
    assert numpy.array_equal(embed, array("embed"))


def test_on_the_nodes_own_host_tensors_are_the_block_files(
    node: InProcessNode, tmp_path: Path
) -> None:
    put(node, URI, made(TENSORS))
    with CacheClient(f"unix://{tmp_path}/node.sock") as client:
        open_safetensors(URI, client=client).load()
        loaded = open_safetensors(URI, client=client).load()
        assert str(node.directory) in Path("/proc/self/maps").read_text()
        del loaded
        assert str(node.directory) not in Path("/proc/self/maps").read_text()


def test_a_sharded_checkpoint_is_one(node: InProcessNode, client: CacheClient) -> None:
    first = {name: TENSORS[name] for name in ("embed", "scale")}
    second = {name: TENSORS[name] for name in ("nothing", "layer.0", "layer.1")}
    where = dict.fromkeys(second, "model-2.safetensors") | dict.fromkeys(
        first, "model-1.safetensors"
    )
    put(node, INDEX, json.dumps({"metadata": {}, "weight_map": where}, indent=1).encode())
    put(node, "s3://models/llm/model-1.safetensors", made(first, {"of": "first"}))
    put(node, "s3://models/llm/model-2.safetensors", made(second))
    checkpoint = open_safetensors(INDEX, client=client)
    assert list(checkpoint) == list(TENSORS)
    assert checkpoint.metadata() == {"of": "first"}
    for name, tensor in checkpoint.items():
        assert tensor.tobytes() == TENSORS[name][2]
    gets = node.count("requests_total", op="read", result="hit")
    one = open_safetensors(INDEX, client=client, names=["layer.1"])
    assert numpy.array_equal(one["layer.1"], array("layer.1"))
    assert "model-1" not in repr(one)
    assert node.count("requests_total", op="read", result="hit") > gets
    with pytest.raises(KeyError, match="did you mean 'embed'"):
        open_safetensors(INDEX, client=client, names=["embd"])


def test_an_index_that_names_what_is_not_there_is_refused(
    node: InProcessNode, client: CacheClient
) -> None:
    put(node, INDEX, json.dumps({"weight_map": {"a": "y.safetensors"}}).encode())
    with pytest.raises(ObjectNotFound, match=r"y\.safetensors"):
        open_safetensors(INDEX, client=client)
    other = "s3://models/llm/other.safetensors.index.json"
    put(node, other, json.dumps({"weight_map": {"a": "x.safetensors"}}).encode())
    put(node, "s3://models/llm/x.safetensors", made({"b": numbers(1, 1, 1)}))
    with pytest.raises(CorruptCheckpoint, match="'a' is not there, though"):
        open_safetensors(other, client=client)


def test_what_is_no_checkpoint_is_refused_before_anything_is_fetched(
    node: InProcessNode, client: CacheClient
) -> None:
    for number, data in enumerate(
        (b"", b"short", b"\xff" * 100, made(TENSORS)[:-1], pattern(5000))
    ):
        uri = f"s3://models/{number}"
        put(node, uri, data)
        with pytest.raises(CorruptCheckpoint, match=uri):
            open_safetensors(uri, client=client)


def test_a_header_longer_than_the_first_read_is_read_to_its_end(
    node: InProcessNode, client: CacheClient
) -> None:
    many = {f"layer.{number:06d}.weight": numbers(1, 2, number) for number in range(4000)}
    put(node, URI, made(many))
    checkpoint = open_safetensors(URI, client=client)
    assert len(checkpoint) == 4000
    assert checkpoint["layer.003999.weight"].tobytes() == many["layer.003999.weight"][2]


@pytest.mark.usefixtures("whole")
def test_the_bar_shows_on_a_terminal_only(
    client: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown, hidden = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", hidden)
    open_safetensors(URI, client=client).load()
    assert hidden.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", shown)
    open_safetensors(URI, client=client, progress=False).load()
    assert shown.getvalue() == ""
    open_safetensors(URI, client=client).load()
    assert "model.safetensors" in shown.getvalue()
    assert "2.2/2.2 MB" in shown.getvalue()


def test_wrong_usage_says_what_to_write(client: CacheClient) -> None:
    with pytest.raises(ValueError, match="framework is 'jax': give one of numpy, torch"):
        open_safetensors(URI, client=client, framework="jax")
    with pytest.raises(ValueError, match="rank is 2 of 2"):
        open_safetensors(URI, client=client, rank=2, world_size=2)


@pytest.mark.usefixtures("whole")
def test_torch_tensors_are_views_that_may_be_written_to(client: CacheClient) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    loaded = load_state_dict(URI, client=client)
    assert list(loaded) == list(TENSORS)
    for name, tensor in loaded.items():
        assert tuple(tensor.shape) == array(name).shape
        assert tensor.numpy().tobytes() == TENSORS[name][2]
    loaded["embed"].add_(1)
    assert torch.equal(loaded["embed"], torch.from_numpy(array("embed").copy()) + 1)
    again = load_state_dict(URI, client=client, names=["embed"])
    assert numpy.array_equal(again["embed"].numpy(), array("embed"))
    del loaded
    assert client.read(URI) == made(TENSORS, {"format": "pt"})
    elsewhere = load_state_dict(URI, client=client, device="meta")
    assert {tensor.device.type for tensor in elsewhere.values()} == {"meta"}


def test_a_region_is_not_closed_under_a_tensor_of_its_memoryview(
    node: InProcessNode, client: CacheClient
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    put(node, URI, pattern(10_000))
    region = client.map(URI)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of memory that cannot be written to
        tensor = torch.frombuffer(memoryview(region), dtype=torch.uint8)
    with pytest.raises(BufferError):
        region.close()
    assert tensor.numpy().tobytes() == pattern(10_000)
    del tensor
    region.close()


def test_an_object_without_a_strong_etag_is_read_too(
    node: InProcessNode, client: CacheClient
) -> None:
    node.put(made(TENSORS), ObjectName.parse(URI), 'W/"weak"')
    found = open_safetensors(URI, client=client, names=["embed", "layer.1"]).load()
    assert {name: one.tobytes() for name, one in found.items()} == {
        name: TENSORS[name][2] for name in ("embed", "layer.1")
    }
    assert open_safetensors(URI, client=client)["scale"].tobytes() == TENSORS["scale"][2]
