"""Tensors as views of memory: numpy's arrays and torch's tensors, without a copy.

Rules: a view keeps its memory alive. numpy's arrays cannot be written to. torch knows no such
tensors, and one that is written to in memory that cannot be is the end of the process: so memory is
made writable for torch, copy on write, and what is written stays in this process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from cachesvc.core.memory import address_of
from cachesvc_client import addresses
from cachesvc_client.limits import RegionRefused
from cachesvc_client.region import EmptyRegion, Region
from cachesvc_client.tensors.dtypes import BITS, numpy_dtype, torch_dtype
from cachesvc_client.tensors.header import TensorSpec

Views = Callable[[TensorSpec], Any]


def numpy_views(region: Region | EmptyRegion) -> Views:
    """What makes arrays of tensors that lie in the region."""
    import numpy

    def view(spec: TensorSpec) -> Any:
        dtype = numpy_dtype(spec.dtype, spec.name)
        if spec.start == spec.end:
            return numpy.empty(spec.shape, dtype)
        count = (spec.end - spec.start) // dtype.itemsize
        return numpy.frombuffer(region, dtype, count, spec.start - region.start).reshape(spec.shape)

    return view


def torch_views(region: Region | EmptyRegion) -> Views:
    """What makes torch tensors of tensors that lie in the region."""
    import torch

    memory = _copied_on_write(region) if isinstance(region, Region) else None

    def view(spec: TensorSpec) -> Any:
        dtype, shape = torch_dtype(spec.dtype, spec.name), spec.shape
        if BITS[spec.dtype] < 8:  # torch counts the bytes of what it packs
            shape = (*shape[:-1], shape[-1] * BITS[spec.dtype] // 8)
        if spec.start == spec.end:
            return torch.empty(shape, dtype=dtype)
        count = (spec.end - spec.start) // dtype.itemsize
        offset = spec.start - region.start
        return torch.frombuffer(memory, dtype=dtype, count=count, offset=offset).reshape(shape)

    return view


def _copied_on_write(region: Region) -> Any:
    """The region's bytes as a writable buffer that keeps the region."""
    address = address_of(region)
    try:
        addresses.thaw(address, len(region))
    except OSError as error:
        raise RegionRefused(
            f"{region.version.name}: {len(region)} bytes cannot be made copy on write for torch"
            f" ({error.strerror}): open with framework='numpy', or raise the limits of this process"
        ) from error
    memory: Any = (ctypes.c_char * len(region)).from_address(address)
    memory.region = region
    return memory
