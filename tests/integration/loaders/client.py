"""Loaders of this project: what its client offers to whoever would rather have less between.

What they read is held against the libraries' own loaders, of the same files on a disk.
"""

from __future__ import annotations

from typing import Any

from tests.integration.loaders import contents
from tests.integration.loaders.loader import BUCKET, Loader, Where, digest

WEIGHTS = "model.safetensors"


def _client(where: Where) -> Any:
    from cachesvc_client import CacheClient

    return CacheClient(**where.options)


def _uri(folder: str, key: str) -> str:
    return f"s3://{BUCKET}/{folder}/{key}"


def client(where: Where, folder: str) -> Any:
    with _client(where) as cache:
        return digest(cache.read(_uri(folder, "big")))


def file(where: Where, folder: str) -> Any:
    return digest((where.path / folder / "big").read_bytes())


def arrays(where: Where, folder: str) -> Any:
    from cachesvc_client.tensors import open_safetensors

    with _client(where) as cache, open_safetensors(_uri(folder, WEIGHTS), client=cache) as found:
        return _told(found.items())


def arrays_of_safetensors(where: Where, folder: str) -> Any:
    from safetensors.numpy import load_file

    return _told(load_file(where.path / folder / WEIGHTS).items())


def _told(arrays: Any) -> Any:
    return {name: (one.shape, str(one.dtype), digest(one.tobytes())) for name, one in arrays}


def tensors(where: Where, folder: str) -> Any:
    from cachesvc_client.tensors import load_state_dict

    with _client(where) as cache:
        return told_of_torch(load_state_dict(_uri(folder, WEIGHTS), client=cache))


def tensors_of_safetensors(where: Where, folder: str) -> Any:
    from safetensors.torch import load_file

    return told_of_torch(load_file(where.path / folder / WEIGHTS))


def told_of_torch(tensors: Any) -> Any:
    import torch

    return {
        name: (tuple(one.shape), str(one.dtype), digest(one.reshape(-1).view(torch.uint8).numpy()))
        for name, one in tensors.items()
    }


def objects(where: Where, folder: str) -> Any:
    from cachesvc_client.tensors import MapS3Dataset
    from torch.utils.data import DataLoader

    with _client(where) as cache:
        found = MapS3Dataset([_uri(folder, "big")], client=cache, transform=digest)
        return tuple(next(iter(DataLoader(found, batch_size=None))))  # which makes it a list


def samples(where: Where, folder: str) -> Any:
    from cachesvc_client.tensors import IterableS3Dataset
    from torch.utils.data import DataLoader

    with _client(where) as cache:
        found = IterableS3Dataset(_uri(folder, "shard-{0..1}.tar"), client=cache)
        return _told_of_samples(DataLoader(found, batch_size=None))


def samples_of_webdataset(where: Where, folder: str) -> Any:
    import webdataset

    shards = str(where.path / folder / "shard-{0..1}.tar")
    return _told_of_samples(webdataset.WebDataset(shards, shardshuffle=False))


def _told_of_samples(found: Any) -> Any:
    return [(one["__key__"], digest(one["bin"]), digest(one["txt"])) for one in found]


LOADERS = [
    Loader("client", contents.big, client, direct=file),
    Loader(
        "safetensors-numpy", contents.weights, arrays, ("ml_dtypes", "numpy", "safetensors"),
        arrays_of_safetensors,
    ),
    Loader(
        "safetensors-torch", contents.weights, tensors, ("torch", "safetensors"),
        tensors_of_safetensors,
    ),
    Loader("torch-objects", contents.big, objects, ("torch",), file),
    Loader(
        "torch-samples", contents.shards, samples, ("torch", "webdataset"), samples_of_webdataset
    ),
]  # fmt: skip
