"""Model weights and training samples straight out of the cache, as numpy arrays and torch tensors.

Story: `open_safetensors` reads the header of a checkpoint and hands out its tensors, each a view of
memory where the bytes already are; `load_state_dict` gives all of them to torch. `MapS3Dataset` and
`IterableS3Dataset` feed a torch DataLoader with objects, or with the samples of tar shards.

Rules: importing this imports neither numpy nor torch; they are imported by the first call that
makes something of theirs, and the datasets, which are classes of torch's, when they are named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachesvc_client.tensors.checkpoint import Checkpoint, load_state_dict, open_safetensors
from cachesvc_client.tensors.header import CorruptCheckpoint, TensorSpec
from cachesvc_client.tensors.slices import TensorSlice

if TYPE_CHECKING:
    from cachesvc_client.tensors.datasets import IterableS3Dataset, MapS3Dataset

__all__ = [
    "Checkpoint",
    "CorruptCheckpoint",
    "IterableS3Dataset",
    "MapS3Dataset",
    "TensorSlice",
    "TensorSpec",
    "load_state_dict",
    "open_safetensors",
]

_OF_TORCH = ("IterableS3Dataset", "MapS3Dataset")


def __getattr__(name: str) -> Any:
    if name not in _OF_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cachesvc_client.tensors import datasets

    return getattr(datasets, name)
