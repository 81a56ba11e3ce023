"""Loading safetensors to numpy, in the reading process.

Rules: the clock runs from the first request until every tensor is an array and has been read once
(a sum), alike for all systems; "load s" is the time until the arrays are there. Arrays are views
of what the system delivered, for the peers too; only safetensors' own loader makes copies.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import systems
from benchmarks.job import Job

_LENGTH = struct.Struct("<Q")
_ALIGN_BYTES = 64


def make_weights(path: Path, source: Path, tensor_count: int) -> int:
    """A safetensors file of F16 tensors out of a file's bytes; its size."""
    total = source.stat().st_size - (1 << 20)
    each = total // tensor_count // _ALIGN_BYTES * _ALIGN_BYTES
    header = {
        f"layer.{number}.weight": {
            "dtype": "F16",
            "shape": [each // 2 // 32, 32],
            "data_offsets": [number * each, (number + 1) * each],
        }
        for number in range(tensor_count)
    }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + _LENGTH.size) % _ALIGN_BYTES)
    with path.open("wb") as file, source.open("rb") as data:
        file.write(_LENGTH.pack(len(text)) + text)
        for _ in range(tensor_count):
            file.write(data.read(each))
    return path.stat().st_size


def views(data: Any) -> dict[str, Any]:
    """Every tensor as an array, without a copy."""
    import numpy

    buffer = memoryview(data).cast("B")
    (length,) = _LENGTH.unpack_from(buffer)
    first = _LENGTH.size + length
    found = {}
    for name, one in json.loads(bytes(buffer[_LENGTH.size : first])).items():
        start, end = one["data_offsets"]
        raw = numpy.frombuffer(buffer[first + start : first + end], numpy.float16)
        found[name] = raw.reshape(one["shape"])
    return found


def _loader(job: Job) -> Callable[[], dict[str, Any]]:
    """What loads the weights; clients and modules are there before the clock runs."""
    (key,) = job.keys
    if job.system == "safetensors_file":
        from safetensors.numpy import load_file

        return lambda: dict(load_file(f"{job.folder}/{key}"))
    if job.system == "region_first_in_place":
        region = systems.first_regions(job)
        return lambda: views(region(key))
    if job.system == "local_mmap_in_place":
        mapping = systems.mapped(job)
        return lambda: views(mapping(key))
    opener = systems.opener_of(job)
    return lambda: views(opener()(key, 0, job.object_bytes))


def weights(job: Job) -> Callable[[], dict[str, float]]:
    """The work of one reading process; it keeps the arrays until it ends."""
    import numpy

    load = _loader(job)
    kept: dict[str, Any] = {}

    def timed() -> dict[str, float]:
        before = time.perf_counter()
        kept.update(load())
        load_s = time.perf_counter() - before
        for array in kept.values():
            array.reshape(-1).view(numpy.uint64).sum()
        if len(kept) != job.extra["tensor_count"]:
            raise RuntimeError(f"{len(kept)} tensors")
        return {"bytes": sum(array.nbytes for array in kept.values()), "load s": load_s}

    return timed
