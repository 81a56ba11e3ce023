"""Whatever the safetensors library takes for a checkpoint, ours takes for the same one, and what it
refuses is refused: its own loaders decide what is right.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from cachesvc_client import CacheClient
from cachesvc_client.tensors import CorruptCheckpoint, load_state_dict, open_safetensors
from cachesvc_client.tensors.dtypes import BITS
from cachesvc_client.tensors.header import LENGTH_BYTES, Header, data_start, parse
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.types import ObjectName
from tests.integration.doors.checkpoints import made
from tests.integration.inprocess import InProcessNode, running
from tests.support import pattern

safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
numpy = pytest.importorskip("numpy", reason="numpy is not installed")

URI = "s3://models/model.safetensors"
OF_THE_LIBRARY = {"F4", "F6_E2M3", "F6_E3M2"}  # which torch's own loader does not make


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessNode]:
    folder = tmp_path_factory.mktemp("node")
    with running(folder / "data", unix=folder / "s", revalidate_s=0.0) as node:
        yield node


@pytest.fixture(scope="module")
def client(node: InProcessNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheClient]:
    with CacheClient(f"unix://{node.directory.parent}/s") as client:
        yield client


@st.composite
def tensors(draw: st.DrawFn, dtypes: list[str]) -> dict[str, tuple[str, list[int], bytes]]:
    found = {}
    for number in range(draw(st.integers(0, 6))):
        dtype = draw(st.sampled_from(dtypes))
        shape = draw(st.lists(st.integers(0, 6), max_size=3))
        if BITS[dtype] < 8:
            shape = [*shape, 8]
        length_bytes = BITS[dtype] // 8 if not shape else 0
        if shape:
            count = 1
            for dimension in shape:
                count *= dimension
            length_bytes = count * BITS[dtype] // 8
        data = pattern(length_bytes, draw(st.integers(0, 1000)))
        if dtype == "BOOL":
            data = bytes(one & 1 for one in data)
        found[draw(st.text(max_size=3)) + f".{number}"] = dtype, shape, data
    return found


def put(node: InProcessNode, data: bytes) -> None:
    node.put(data, ObjectName.parse(URI))


def ours(data: bytes) -> Header:
    start = data_start(URI, len(data), data)
    return parse(URI, data[LENGTH_BYTES:start], start, len(data))


@given(told=tensors(sorted(BITS)))
def test_every_dtype_lies_where_the_library_finds_it(told: dict[str, Any]) -> None:
    data = made(told)
    found = ours(data).tensors
    theirs = dict(safetensors.deserialize(data))
    assert {name: data[one.start : one.end] for name, one in found.items()} == {
        name: bytes(one["data"]) for name, one in theirs.items()
    }
    assert {name: list(one.shape) for name, one in found.items() if one.dtype != "F4"} == {
        name: one["shape"] for name, one in theirs.items() if one["dtype"] != "F4"
    }


@given(told=tensors([one for one in sorted(BITS) if one not in OF_THE_LIBRARY | {"F8_E8M0"}]))
def test_torch_tensors_are_bit_for_bit_those_of_the_library(
    node: InProcessNode, client: CacheClient, told: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from safetensors.torch import load

    data = made(told)
    put(node, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of memory that is not writable
        theirs = load(data)
    found = load_state_dict(URI, client=client)
    assert found.keys() == theirs.keys()
    for name, tensor in found.items():
        assert tensor.dtype == theirs[name].dtype
        assert tensor.shape == theirs[name].shape
        same = tensor.reshape(-1).view(torch.uint8), theirs[name].reshape(-1).view(torch.uint8)
        assert not tensor.numel() or torch.equal(*same)


OF_NUMPY = [
    "BOOL",
    "U8",
    "I8",
    "I16",
    "U16",
    "F16",
    "I32",
    "U32",
    "F32",
    "I64",
    "U64",
    "F64",
    "C64",
]


@given(told=tensors(OF_NUMPY))
def test_arrays_are_bit_for_bit_those_of_the_library(
    node: InProcessNode, client: CacheClient, told: dict[str, Any]
) -> None:
    from safetensors.numpy import load

    data = made(told)
    put(node, data)
    theirs = load(data)
    found = open_safetensors(URI, client=client).load()
    assert found.keys() == theirs.keys()
    for name, array in found.items():
        assert array.dtype == theirs[name].dtype
        assert array.shape == theirs[name].shape
        assert array.tobytes() == theirs[name].tobytes()


@given(told=tensors(["BF16", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0"]))
def test_small_floats_of_numpy_are_the_same_bits(
    node: InProcessNode, client: CacheClient, told: dict[str, Any]
) -> None:
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    put(node, made(told))
    found = open_safetensors(URI, client=client).load()
    for name, (dtype, shape, data) in told.items():
        assert found[name].tobytes() == data
        assert list(found[name].shape) == shape
        assert found[name].dtype.itemsize == BITS[dtype] // 8


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A file of which something was changed: a number or a name of the header, a byte, its end."""
    told = draw(tensors(OF_NUMPY))
    data = bytearray(made(told))
    length_bytes = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length_bytes])
    way = draw(st.sampled_from(["number", "byte", "cut", "longer", "length"]))
    if way == "number" and header:
        one = header[draw(st.sampled_from(sorted(header)))]
        which = draw(st.sampled_from(["shape", "data_offsets"]))
        if one[which]:
            place = draw(st.integers(0, len(one[which]) - 1))
            one[which][place] = draw(
                st.one_of(st.integers(-2, 400), st.sampled_from([1 << 62, (1 << 64) - 1, 1 << 64]))
            )
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + bytes(data[8 + length_bytes :])
    if way == "byte":
        place = draw(st.integers(0, 8 + length_bytes - 1))
        data[place] = draw(st.integers(0, 255))
    elif way == "cut":
        del data[draw(st.integers(0, len(data))) :]
    elif way == "longer":
        data += b"x" * draw(st.integers(1, 9))
    else:
        data[:8] = struct.pack("<Q", draw(st.integers(0, (1 << 64) - 1)))
    return bytes(data)


@given(data=broken())
def test_what_the_library_refuses_is_refused(data: bytes) -> None:
    try:
        theirs: dict[str, Any] | None = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError:
        theirs = None
    try:
        found = ours(data).tensors
    except CorruptCheckpoint:
        return
    assert theirs is not None, "ours takes it"
    assert {name: data[one.start : one.end] for name, one in found.items()} == {
        name: bytes(one["data"]) for name, one in theirs.items()
    }


@given(told=tensors(OF_NUMPY))
def test_what_the_library_writes_is_taken(told: dict[str, Any]) -> None:
    arrays = {
        name: numpy.frombuffer(data, numpy.dtype("u1")).copy()
        for name, (_, _, data) in told.items()
    }
    from safetensors.numpy import save

    found = ours(save(arrays, {"a": "b"}))
    assert found.metadata == {"a": "b"}
    assert found.tensors.keys() == arrays.keys()
