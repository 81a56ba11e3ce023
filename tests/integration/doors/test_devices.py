"""Checkpoints on a GPU: what arrives there is what the file holds. Runs where CUDA is."""

from __future__ import annotations

from typing import Any

import pytest
from cachesvc_client import CacheClient
from cachesvc_client.tensors import load_state_dict, staging

from cachesvc.core.types import ObjectName
from tests.integration.doors.checkpoints import made
from tests.integration.inprocess import InProcessNode
from tests.support import pattern

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

URI = "s3://models/model.safetensors"
WIDTH_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
}  # fmt: skip


def told() -> dict[str, tuple[str, list[int], bytes]]:
    tensors = {
        f"{dtype}.{rows}": (dtype, [rows, 1000], pattern(rows * 1000 * width, rows))
        for dtype, width in WIDTH_BYTES.items()
        for rows in (1, 37, 700)
    }
    return tensors | {
        "flags": ("BOOL", [4000], bytes(i % 2 for i in range(4000))),
        "scale": ("F64", [], pattern(8, 2)),
        "nothing": ("F32", [0, 4], b""),
    }


def bytes_of(tensor: Any) -> bytes:
    return bytes(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())


@pytest.mark.parametrize("stage_bytes", [4096, 999_424, staging.STAGE_BYTES])
def test_tensors_on_a_gpu_are_what_the_file_holds(
    node: InProcessNode, client: CacheClient, monkeypatch: pytest.MonkeyPatch, stage_bytes: int
) -> None:
    monkeypatch.setattr(staging, "STAGE_BYTES", stage_bytes)
    node.put(made(told()), ObjectName.parse(URI))
    loaded = load_state_dict(URI, client=client, device="cuda")
    assert list(loaded) == list(told())
    for name, (_, shape, data) in told().items():
        assert loaded[name].device.type == "cuda"
        assert list(loaded[name].shape) == shape
        assert bytes_of(loaded[name]) == data, name


def test_on_a_stream_of_the_caller_they_are_there_when_it_returns(
    node: InProcessNode, client: CacheClient
) -> None:
    node.put(made(told()), ObjectName.parse(URI))
    with torch.cuda.stream(torch.cuda.Stream()):
        loaded = load_state_dict(URI, client=client, device="cuda:0", names=["I32.700"])
    assert bytes_of(loaded["I32.700"]) == told()["I32.700"][2]
