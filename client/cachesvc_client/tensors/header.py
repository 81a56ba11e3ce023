"""The header of a safetensors file: 8 bytes that say how long it is, then JSON. Pure: no I/O.

Rules: the file is not trusted. Everything is held to the size of the file, in the order in which it
is read, before anything is made of it. A header that claims more than the file has; a tensor whose
bytes overlap another's, lie outside, or are not as many as dtype and shape say; bytes that belong
to no tensor; a name that appears twice; an unknown dtype: each is CorruptCheckpoint, which names
the tensor. So the sizes of all tensors together never exceed the file.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from cachesvc.core.errors import CacheError, Retry
from cachesvc_client.tensors.dtypes import BITS

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
_MAX_DIMENSIONS = 64
_METADATA = "__metadata__"


class CorruptCheckpoint(CacheError, ValueError):
    """The object is no safetensors file, or not a whole one."""

    retry = Retry.NEVER


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor, or some rows of one: bytes `[start, end)` of its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def rows(self, first: int, beyond: int) -> TensorSpec:
        """Rows `[first, beyond)` of the first dimension.

        Raises: ValueError where they do not begin and end with a byte (4-bit types).
        """
        row_bits = prod(self.shape[1:]) * BITS[self.dtype]
        if first * row_bits % 8 or beyond * row_bits % 8:
            raise ValueError(
                f"tensor {self.name!r}: rows [{first}, {beyond}) of {self.dtype} {self.shape} do"
                " not begin and end with a byte: take another split, or the whole tensor"
            )
        start = self.start + first * row_bits // 8
        end = self.start + beyond * row_bits // 8
        return TensorSpec(self.name, self.dtype, (beyond - first, *self.shape[1:]), start, end)

    def share(self, rank: int, world_size: int) -> TensorSpec:
        """The rows of one of `world_size` ranks, as torch.tensor_split cuts them: the first ranks
        have one more where they do not come out even. A tensor without dimensions is everybody's.
        """
        if world_size == 1 or not self.shape:
            return self
        each, more = divmod(self.shape[0], world_size)
        first = rank * each + min(rank, more)
        return self.rows(first, first + each + (rank < more))


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds: its tensors by name, in the order of their bytes, and its metadata."""

    tensors: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]


def data_start(uri: str, size_bytes: int, head: bytes) -> int:
    """Where the header ends and the tensors begin. head: the first bytes of the file."""
    if size_bytes < LENGTH_BYTES:
        raise CorruptCheckpoint(
            f"{uri}: {size_bytes} bytes are no safetensors file, which has at least {LENGTH_BYTES}"
        )
    length_bytes = int.from_bytes(head[:LENGTH_BYTES], "little")
    if length_bytes > MAX_HEADER_BYTES:
        raise CorruptCheckpoint(
            f"{uri}: the header claims {length_bytes} bytes, {MAX_HEADER_BYTES} is the most: this"
            " is no safetensors file"
        )
    if LENGTH_BYTES + length_bytes > size_bytes:
        raise CorruptCheckpoint(
            f"{uri}: the header claims {length_bytes} bytes, but the file has {size_bytes}: it was"
            " cut short, or is no safetensors file"
        )
    return LENGTH_BYTES + length_bytes


def parse(uri: str, text: bytes, start: int, size_bytes: int) -> Header:
    """The header, proven to fit the file.

    text: its JSON. start: where the tensors' bytes begin.
    """
    told = _decoded(uri, text)
    metadata = told.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CorruptCheckpoint(f"{uri}: {_METADATA} is no map of strings")
    specs = sorted(
        (_spec(uri, name, one, start) for name, one in told.items()),
        key=lambda spec: (spec.start, spec.end),
    )
    _check_tiling(uri, specs, start, size_bytes)
    return Header({spec.name: spec for spec in specs}, metadata)


def _decoded(uri: str, text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise CorruptCheckpoint(f"{uri}: the header is no JSON object: no safetensors file")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
            raise CorruptCheckpoint(f"{uri}: the header has {twice!r} twice")
        return found

    try:
        told = json.loads(text.decode(), object_pairs_hook=unique)
    except CorruptCheckpoint:
        raise
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"{uri}: the header is no JSON: {error}") from error
    assert isinstance(told, dict), "it begins with a brace"
    return told


def _spec(uri: str, name: str, told: Any, data_start: int) -> TensorSpec:
    where = f"{uri}: tensor {name!r}"
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data_offsets"}:
        raise CorruptCheckpoint(f"{where} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise CorruptCheckpoint(f"{where} has the unknown dtype {dtype!r}")
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise CorruptCheckpoint(f"{where} has the impossible shape {str(shape)[:100]}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CorruptCheckpoint(f"{where} has the impossible offsets {str(offsets)[:100]}")
    start, end = offsets
    bits = prod(shape) * BITS[dtype]
    if bits != (end - start) * 8:
        raise CorruptCheckpoint(
            f"{where} has {end - start} bytes, but {dtype} of shape {shape} takes {-(-bits // 8)}"
        )
    return TensorSpec(name, dtype, tuple(shape), data_start + start, data_start + end)


def _are_counts(told: Any) -> bool:
    return isinstance(told, list) and all(type(one) is int and 0 <= one < 1 << 63 for one in told)


def _check_tiling(uri: str, specs: list[TensorSpec], start: int, size_bytes: int) -> None:
    """The tensors lie one after another, and fill the file."""
    for spec in specs:
        if spec.end > size_bytes:
            raise CorruptCheckpoint(
                f"{uri}: tensor {spec.name!r} ends at byte {spec.end}, but the file has"
                f" {size_bytes}: it was cut short"
            )
        if spec.start != start:
            what = "overlaps another tensor" if spec.start < start else "leaves a gap before it"
            raise CorruptCheckpoint(f"{uri}: tensor {spec.name!r} at byte {spec.start} {what}")
        start = spec.end
    if start != size_bytes:
        raise CorruptCheckpoint(
            f"{uri}: the tensors end at byte {start}, but the file has {size_bytes} bytes"
        )


def shards(uri: str, text: bytes) -> dict[str, list[str]]:
    """Of the index of a sharded checkpoint: the tensors that are in each file, files by name."""
    told = _decoded(uri, text.lstrip()).get("weight_map")
    if not isinstance(told, dict) or not all(isinstance(v, str) and v for v in told.values()):
        raise CorruptCheckpoint(f"{uri}: weight_map is no map of tensor names to file names")
    found = defaultdict(list)
    for name, file in sorted(told.items(), key=lambda item: item[1]):
        found[file].append(name)
    return dict(found)
