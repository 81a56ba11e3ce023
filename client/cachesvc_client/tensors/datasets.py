"""Datasets for torch's DataLoader that read objects, or the samples of tar shards, from the cache.

Rules: a dataset holds names and settings; each process, forked or spawned, reads through a client
of its own connections. The order of an epoch follows from the seed and the epoch alone, so all
workers and ranks agree on it, and each object is read by exactly one of them.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cachesvc_client.client import CacheClient
from cachesvc_client.tensors.tar_samples import samples

try:
    import torch
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ImportError as _error:
    raise ImportError("datasets need torch: pip install '.[torch]' in a clone") from _error

Transform = Callable[[Any], Any]

SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_SHARD_BUFFER_BYTES = 8 << 20


class MapS3Dataset(Dataset):  # type: ignore[misc]
    """Objects by number, each as bytes, or what `transform` makes of these.

    uris: names, also written with braces as in `s3://bucket/image-{0000..0999}.jpg`. client:
    default one of CACHESVC_ENDPOINT. Raises what CacheClient.read raises.
    """

    def __init__(
        self,
        uris: str | Iterable[str],
        *,
        client: CacheClient | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.uris = expanded(uris)
        self._reader = _Reader(client)
        self._transform = transform

    def __len__(self) -> int:
        return len(self.uris)

    def __getitem__(self, index: int) -> Any:
        data = self._reader.client().read(self.uris[index])
        return self._transform(data) if self._transform else data


class IterableS3Dataset(IterableDataset):  # type: ignore[misc]
    """Objects one after another: the samples of tar shards (webdataset's layout) as dicts of
    `__key__`, `__url__` and bytes by extension, any other object as bytes.

    uris, client: as of MapS3Dataset. transform: of each sample. shuffle: the order of objects by
    seed and epoch, and samples among `buffer_count` (0: not at all). rank, world_size: default
    torch.distributed's, else RANK and WORLD_SIZE, else alone. Objects are dealt out to ranks and
    their workers in turn, so there should be at least as many.

    Raises CorruptShard (also a ValueError) for what is no tar archive, else as CacheClient.open.
    """

    def __init__(
        self,
        uris: str | Iterable[str],
        *,
        client: CacheClient | None = None,
        transform: Transform | None = None,
        shuffle: bool = False,
        seed: int = 0,
        buffer_count: int = 1000,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.uris = expanded(uris)
        self._reader = _Reader(client)
        self._transform = transform
        self._shuffle = shuffle
        self._seed = seed
        self._buffer_count = buffer_count
        found_rank, found_size = _place_in_world()
        self._rank = found_rank if rank is None else rank
        self._world_size = found_size if world_size is None else world_size
        if not 0 <= self._rank < self._world_size:
            raise ValueError(
                f"rank is {self._rank} of {self._world_size}: give 0 <= rank < world_size"
            )
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # seen by workers that stay

    def set_epoch(self, epoch: int) -> None:
        """Before each epoch, as of torch's DistributedSampler: another order, the same everywhere.

        Workers see it when they next begin, also persistent ones.
        """
        self._epoch[0] = epoch

    def __iter__(self) -> Iterator[Any]:
        epoch = f"{self._seed}:{int(self._epoch[0])}"
        worker = get_worker_info()
        worker_id, worker_count = (worker.id, worker.num_workers) if worker else (0, 1)
        place = self._rank * worker_count + worker_id
        order = list(self.uris)
        if self._shuffle:
            random.Random(epoch).shuffle(order)
        found = self._samples(order[place :: self._world_size * worker_count])
        if self._shuffle and self._buffer_count:
            found = _stirred(found, self._buffer_count, random.Random(f"{epoch}:{place}"))
        return map(self._transform, found) if self._transform else found

    def _samples(self, uris: Sequence[str]) -> Iterator[Any]:
        client = self._reader.client()
        for uri in uris:
            if uri.endswith(SHARDS):
                with client.pin(uri).file(_SHARD_BUFFER_BYTES) as file:
                    yield from samples(uri, file)
            else:
                yield client.read(uri)


class _Reader:
    """The client that was given, or one made where it is needed, in whichever process."""

    def __init__(self, client: CacheClient | None) -> None:
        self._client = client
        self._given = client is not None

    def client(self) -> CacheClient:
        if self._client is None:
            self._client = CacheClient()
        return self._client

    def __del__(self) -> None:
        if self._client is not None and not self._given:
            self._client.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_client": self._client if self._given else None, "_given": self._given}


def expanded(uris: str | Iterable[str]) -> list[str]:
    """Names, with `{000..123}` written out."""
    if not isinstance(uris, str):
        return [one for uri in uris for one in expanded(uri)]
    found = _BRACES.search(uris)
    if not found:
        return [uris]
    first, last = found[1], found[2]
    width = len(first) if len(first) == len(last) else 0
    return [
        one
        for number in range(int(first), int(last) + 1)
        for one in expanded(f"{uris[: found.start()]}{number:0{width}d}{uris[found.end() :]}")
    ]


def _place_in_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


def _stirred(found: Iterator[Any], buffer_count: int, chance: random.Random) -> Iterator[Any]:
    """The samples in another order: each waits among `buffer_count` others until it is drawn."""
    waiting: list[Any] = []
    for sample in found:
        waiting.append(sample)
        if len(waiting) > buffer_count:
            drawn = chance.randrange(len(waiting))
            waiting[drawn], waiting[-1] = waiting[-1], waiting[drawn]
            yield waiting.pop()
    chance.shuffle(waiting)
    yield from waiting
