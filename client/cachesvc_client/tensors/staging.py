"""Tensors of the cache's memory copied to a device, by way of page-locked buffers for CUDA.

A GPU reads only page-locked memory by itself. A driver that is given any other copies it through a
buffer of its own, with one thread, and waits. So here all threads of torch copy into one of two
buffers while the GPU reads the other.
"""

from __future__ import annotations

from typing import Any, Protocol

STAGE_BYTES = 32 << 20


class Copies(Protocol):
    """What copies tensors of one device after another."""

    def copy(self, tensor: Any) -> Any:
        """The tensor on the device; its bytes may still be on their way until `finish`."""

    def finish(self) -> None:
        """What was given to `copy` may go: its bytes have arrived."""


def copies_to(device: Any) -> Copies:
    """What copies torch's CPU tensors to a device, given as torch takes it ("cuda:1", "cpu")."""
    import torch

    place = torch.device(device)
    staged = place.type == "cuda" and torch.cuda.is_available()  # if not, torch says why
    return _StagedCopies(place) if staged else _DirectCopies(place)


class _DirectCopies:
    """Other devices: torch's own copy, and none to the device where a tensor is."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def copy(self, tensor: Any) -> Any:
        return tensor.to(self._device)

    def finish(self) -> None:
        """Nothing is on its way."""


class _StagedCopies:
    """CUDA: chunks go through the two buffers in turn, on the device's current stream."""

    def __init__(self, device: Any) -> None:
        import torch

        self._torch = torch
        self._device = device
        with torch.cuda.device(device):
            self._free = [torch.cuda.Event(), torch.cuda.Event()]
        self._buffers = [
            torch.empty(STAGE_BYTES, dtype=torch.uint8, pin_memory=True) for _ in self._free
        ]
        self._chunks = 0

    def copy(self, tensor: Any) -> Any:
        torch = self._torch
        copied = torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
        source, target = _bytes_of(torch, tensor), _bytes_of(torch, copied)
        stream = torch.cuda.current_stream(self._device)
        for start in range(0, len(source), STAGE_BYTES):
            chunk = source[start : start + STAGE_BYTES]
            turn = self._chunks % len(self._buffers)
            self._chunks += 1
            self._free[turn].synchronize()
            staged = self._buffers[turn][: len(chunk)]
            staged.copy_(chunk)
            target[start : start + len(chunk)].copy_(staged, non_blocking=True)
            self._free[turn].record(stream)
        return copied

    def finish(self) -> None:
        for event in self._free:
            event.synchronize()


def _bytes_of(torch: Any, tensor: Any) -> Any:
    return tensor.reshape(-1).view(torch.uint8)
