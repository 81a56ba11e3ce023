"""Safetensors files made by hand, so that they need no library, and can be wrong."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from tests.support import pattern

Told = Mapping[str, tuple[str, list[int], bytes]]  # dtype, shape, bytes


def made(tensors: Told, metadata: Mapping[str, str] | None = None) -> bytes:
    """A file of tensors in the order given."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset, body = 0, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)],
        }  # fmt: skip
        offset += len(data)
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def numbers(rows: int, columns: int, seed: int) -> tuple[str, list[int], bytes]:
    """A tensor of int32 of any bits: rows are told apart."""
    return "I32", [rows, columns], pattern(4 * rows * columns, seed)
