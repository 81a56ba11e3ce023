"""Bytes objects that are filled in place, so that a large answer is not copied once more; and where
in memory a buffer begins.

CPython lays the content of a bytes object behind its header, and its C API lets the code that made
one write to it until it is shared (PyBytes_FromStringAndSize). Pure: no I/O.
"""

from __future__ import annotations

import ctypes
from typing import Any

_HEADER_BYTES = bytes.__basicsize__ - 1
_SIMPLE = 0  # PyBUF_SIMPLE

_new = ctypes.pythonapi.PyBytes_FromStringAndSize
_new.restype = ctypes.py_object
_new.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)
_look = ctypes.pythonapi.PyObject_GetBuffer


class _Buffer(ctypes.Structure):
    """Py_buffer, which has kept its layout since Python 3.0."""

    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


def fresh_bytes(size_bytes: int) -> tuple[bytes, memoryview]:
    """A new bytes object of any content, and a writable view of it.

    The caller fills all of the view and lets it go before anybody else sees the object; it keeps
    the object while the view lives. At least 2 bytes: smaller ones are shared from birth.
    """
    assert size_bytes > 1, "empty and one-byte objects are shared"
    data: bytes = _new(None, size_bytes)
    raw = (ctypes.c_char * size_bytes).from_address(id(data) + _HEADER_BYTES)
    return data, memoryview(raw).cast("B")


def address_of(buffer: Any) -> int:
    """Where a buffer begins, also one that can only be read. The caller keeps it."""
    found = _Buffer()
    there, release = ctypes.byref(found), ctypes.pythonapi.PyBuffer_Release
    try:
        _look(ctypes.py_object(buffer), there, _SIMPLE)
        address: int = found.buf
    finally:  # also of what a signal's handler raises; nothing happens where nothing was got
        release(there)
    return address
