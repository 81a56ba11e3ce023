"""Headers of safetensors files that lie: refused by what they say, before anything is made."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from cachesvc_client.tensors import CorruptCheckpoint, TensorSpec
from cachesvc_client.tensors.header import Header, data_start, parse, shards

URI = "s3://bucket/model.safetensors"


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def parsed(told: Any, data_bytes: int) -> Header:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    start = 8 + len(text)
    return parse(URI, text, start, start + data_bytes)


def test_tensors_come_in_the_order_of_their_bytes() -> None:
    told = {
        "late": tensor("F32", [2], 6, 14),
        "nothing": tensor("F64", [3, 0], 6, 6),
        "scalar": tensor("I16", [], 4, 6),
        "__metadata__": {"format": "pt"},
        "first": tensor("U8", [4], 0, 4),
    }
    header = parsed(told, 14)
    assert list(header.tensors) == ["first", "scalar", "nothing", "late"]
    assert header.metadata == {"format": "pt"}
    start = 8 + len(json.dumps(told))
    assert header.tensors["late"] == TensorSpec("late", "F32", (2,), start + 6, start + 14)


@pytest.mark.parametrize(
    ("told", "data_bytes", "why"),
    [
        (b"", 0, "no JSON object"),
        (b"[]", 0, "no JSON object"),
        (b" {}", 0, "no JSON object"),
        (b"{", 0, "no JSON"),
        (b'{"a": \xff}', 0, "no JSON"),
        (b'{"a":' * 100_000, 0, "no JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", 0, "no JSON"),
        ({"a": 1}, 0, "'a' is not described by"),
        ({"a": tensor("U8", [1], 0, 1) | {"more": 1}}, 1, "'a' is not described by"),
        ({"a": {"dtype": "U8", "shape": [1]}}, 1, "'a' is not described by"),
        ({"a": tensor("F128", [1], 0, 16)}, 16, "unknown dtype 'F128'"),
        ({"a": tensor(["U8"], [1], 0, 1)}, 1, "unknown dtype"),  # type: ignore[arg-type]
        ({"a": tensor("U8", [-1], 0, 1)}, 1, "impossible shape"),
        ({"a": tensor("U8", [True], 0, 1)}, 1, "impossible shape"),
        ({"a": tensor("U8", [1.0], 0, 1)}, 1, "impossible shape"),  # type: ignore[list-item]
        ({"a": tensor("U8", [1 << 64], 0, 1)}, 1, "impossible shape"),
        ({"a": tensor("U8", [1] * 65, 0, 1)}, 1, "impossible shape"),
        ({"a": {"dtype": "U8", "shape": 1, "data_offsets": [0, 1]}}, 1, "impossible shape"),
        ({"a": tensor("U8", [1], 1, 0)}, 1, "impossible offsets"),
        ({"a": tensor("U8", [1], -1, 0)}, 1, "impossible offsets"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}, 1, "impossible offsets"),
        ({"a": tensor("F32", [2], 0, 4)}, 4, "has 4 bytes, but F32 of shape .* takes 8"),
        ({"a": tensor("U8", [1 << 62] * 60, 0, 4)}, 4, "takes"),
        ({"a": tensor("F4", [3], 0, 1)}, 1, "takes 2"),
        ({"a": tensor("U8", [8], 0, 8)}, 4, "ends at byte .* cut short"),
        ({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 1, 3)}, 3, "'b' .* overlaps"),
        ({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 0, 2)}, 2, "'b' .* overlaps"),
        ({"a": tensor("U8", [1], 0, 1), "b": tensor("U8", [1], 2, 3)}, 3, "'b' .* leaves a gap"),
        ({"a": tensor("U8", [1], 1, 2)}, 2, "'a' .* leaves a gap"),
        ({"a": tensor("U8", [1], 0, 1)}, 2, "the tensors end at byte"),
        ({}, 1, "the tensors end at byte"),
        ({"__metadata__": {"a": 1}}, 0, "no map of strings"),
        ({"__metadata__": []}, 0, "no map of strings"),
        (b'{"a": 1, "b": 1, "a": 2}', 0, "has 'a' twice"),
        (
            b'{"a": {"dtype": "U8", "dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}',
            1,
            "has 'dtype' twice",
        ),
    ],
)
def test_a_header_that_lies_is_refused(told: Any, data_bytes: int, why: str) -> None:
    with pytest.raises(CorruptCheckpoint, match=why) as raised:
        parsed(told, data_bytes)
    assert str(raised.value).startswith(URI)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize(
    ("length_bytes", "size_bytes", "why"),
    [
        (0, 7, "7 bytes are no safetensors file"),
        (1 << 63, 1 << 40, "100000000 is the most"),
        (100_000_001, 1 << 40, "100000000 is the most"),
        (93, 100, "claims 93 bytes, but the file has 100"),
    ],
)
def test_a_header_longer_than_its_file_is_not_read(
    length_bytes: int, size_bytes: int, why: str
) -> None:
    with pytest.raises(CorruptCheckpoint, match=why):
        data_start(URI, size_bytes, length_bytes.to_bytes(8, "little"))
    assert data_start(URI, 100, (92).to_bytes(8, "little")) == 100


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 20])
def test_the_shares_of_all_ranks_are_the_tensor(world_size: int) -> None:
    spec = TensorSpec("a", "F32", (10, 3), 100, 220)
    shares = [spec.share(rank, world_size) for rank in range(world_size)]
    assert shares[0].start == 100
    assert shares[-1].end == 220
    assert all(one.end == other.start for one, other in pairwise(shares))
    assert [one.shape[0] for one in shares] == sorted(
        (one.shape[0] for one in shares), reverse=True
    )
    assert sum(one.shape[0] for one in shares) == 10


def test_a_share_that_cuts_a_byte_is_refused() -> None:
    spec = TensorSpec("a", "F4", (2, 1), 0, 1)
    with pytest.raises(ValueError, match="do not begin and end with a byte"):
        spec.share(0, 2)


@pytest.mark.parametrize(
    "told", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": ""}}]
)
def test_an_index_that_is_none_is_refused(told: Any) -> None:
    with pytest.raises(CorruptCheckpoint, match="weight_map"):
        shards(URI, json.dumps(told).encode())
