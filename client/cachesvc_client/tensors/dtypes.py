"""The element types of safetensors files, and what numpy and torch call them. Imports neither.

Rules: a type that a framework lacks is an error that names the tensor and what to do, raised when
that tensor is wanted; the sizes are known without any framework.
"""

from __future__ import annotations

from typing import Any

BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

_NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4",
    "U32": "<u4", "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_ML_DTYPES = {
    "BF16": "bfloat16", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
_TORCH = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "F16": "float16",
    "BF16": "bfloat16", "I32": "int32", "U32": "uint32", "F32": "float32", "I64": "int64",
    "U64": "uint64", "F64": "float64", "C64": "complex64", "F4": "float4_e2m1fn_x2",
    "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip


def numpy_dtype(dtype: str, tensor: str) -> Any:
    """numpy's dtype. Raises TypeError if there is none; ImportError if ml_dtypes would have it."""
    import numpy

    if dtype in _NUMPY:
        return numpy.dtype(_NUMPY[dtype])
    if dtype not in _ML_DTYPES:
        raise TypeError(f"tensor {tensor!r} is {dtype}, which numpy has no type for: use torch")
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError(
            f"tensor {tensor!r} is {dtype}, which numpy alone has no type for: pip install"
            " ml_dtypes, or open with framework='torch'"
        ) from error
    return numpy.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))


def torch_dtype(dtype: str, tensor: str) -> Any:
    """torch's dtype. Raises TypeError if this torch has none."""
    import torch

    found = getattr(torch, _TORCH.get(dtype, ""), None)
    if found is None:
        raise TypeError(
            f"tensor {tensor!r} is {dtype}, which torch {torch.__version__} has no type for:"
            " leave it out with names="
        )
    return found
