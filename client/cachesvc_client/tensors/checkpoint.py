"""A checkpoint of one safetensors file or of many: its tensors by name, each fetched when wanted.

Story: `open_safetensors` reads the header, or the index and the headers of the shards that are
wanted, and fetches no tensor. `checkpoint[name]` fetches one; `values`, `items` and `load` fetch
all that are wanted, a file at a time, every file in one read that all nodes answer in parallel.

Rules: tensors come in the order of files and of their bytes; of a checkpoint that was opened for a
rank, only its rows are ever fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from itertools import groupby
from typing import Any, Self

from cachesvc_client.client import CacheClient
from cachesvc_client.tensors import progress as progress_bar
from cachesvc_client.tensors.header import CorruptCheckpoint, TensorSpec, shards
from cachesvc_client.tensors.shard import FRAMEWORKS, Shard
from cachesvc_client.tensors.slices import TensorSlice
from cachesvc_client.tensors.staging import copies_to

_INDEX = ".json"
_HOW_TO_GET = {
    "numpy": "pip install '.[tensors]' in a clone, or for torch's tensors give framework='torch'",
    "torch": "pip install '.[torch]' in a clone, or have numpy's arrays of open_safetensors(uri)",
}


class Checkpoint(Mapping[str, Any]):
    """Tensors by name, in file order. Made by `open_safetensors`; a context manager.

    Tensors stay good after `close` and for as long as anybody holds them: they are views of memory
    that they keep, of one version of each file. Reads raise what those of CacheClient raise.
    """

    def __init__(
        self,
        client: CacheClient,
        owned: bool,
        shards: list[Shard],
        specs: dict[str, tuple[Shard, TensorSpec]],
        framework: str,
        progress: bool | None,
    ) -> None:
        self._client = client
        self._owned = owned
        self._shards = shards
        self._specs = specs
        self._framework = framework
        self._progress = progress

    def __getitem__(self, name: str) -> Any:
        """One tensor, read now. Raises KeyError for a name that is not there, or not wanted."""
        shard, spec = self._found(name)
        return shard.fetch([spec], self._framework)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def items(self) -> Any:
        """Names and tensors, a file fetched at a time, when it is its turn."""
        return self._all()

    def values(self) -> Any:
        """Tensors, a file fetched at a time, when it is its turn."""
        return (tensor for _, tensor in self._all())

    def load(self) -> dict[str, Any]:
        """All tensors that are wanted."""
        return dict(self._all())

    def get_tensor(self, name: str) -> Any:
        """One tensor, as `safe_open(...).get_tensor` gives it."""
        return self[name]

    def get_slice(self, name: str) -> TensorSlice:
        """A tensor of which an index fetches the rows that it touches."""
        shard, spec = self._found(name)
        return TensorSlice(spec, lambda part: shard.fetch([part], self._framework)[name])

    def spec(self, name: str) -> TensorSpec:
        """Dtype, shape and place of what is wanted of a tensor; nothing is fetched."""
        return self._found(name)[1]

    def metadata(self) -> dict[str, str]:
        """The metadata of the files; of several that say the same key, the last."""
        return {key: said for shard in self._shards for key, said in shard.header.metadata.items()}

    def close(self) -> None:
        """Let go of the client, if it was made for this checkpoint."""
        if self._owned:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Checkpoint of {len(self)} tensors in {[shard.uri for shard in self._shards]}>"

    def _found(self, name: str) -> tuple[Shard, TensorSpec]:
        try:
            return self._specs[name]
        except KeyError:
            raise _unknown(name, self._specs) from None

    def _all(self) -> Iterator[tuple[str, Any]]:
        total_bytes = sum(spec.end - spec.start for _, spec in self._specs.values())
        what = self._shards[0].uri.rpartition("/")[2] if self._shards else "checkpoint"
        with progress_bar.bar(what, total_bytes, self._progress) as told:
            for _, group in groupby(self._specs.values(), key=lambda pair: id(pair[0])):
                pairs = list(group)
                shard, wanted = pairs[0][0], [spec for _, spec in pairs]
                yield from shard.fetch(wanted, self._framework, told).items()


def open_safetensors(
    uri: str,
    *,
    client: CacheClient | None = None,
    framework: str = "numpy",
    names: Iterable[str] | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: bool | None = None,
) -> Checkpoint:
    """The tensors of `s3://bucket/model.safetensors`, or of a sharded checkpoint, named by its
    index: `s3://bucket/model.safetensors.index.json`.

    client: default one of CACHESVC_ENDPOINT, closed with the checkpoint. framework: "numpy" (arrays
    that cannot be written to) or "torch" (on the CPU; what is written stays in this process).
    names: only these tensors. rank, world_size: of every tensor only the rows of this rank, as
    torch.tensor_split would cut its first dimension; one without dimensions is everybody's.
    progress: a bar for `load`, `items` and `values`; None shows it on a terminal.

    Nothing but headers is fetched yet. Raises: CorruptCheckpoint (also a ValueError) for what is no
    whole checkpoint; KeyError for a name that it does not have; ImportError without the framework;
    else as a read of CacheClient does.
    """
    if framework not in FRAMEWORKS:
        raise ValueError(f"framework is {framework!r}: give one of {', '.join(FRAMEWORKS)}")
    _check_there(framework, uri)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank} of {world_size}: give 0 <= rank < world_size")
    owned = client is None
    cache = client or CacheClient()
    try:
        found = _opened(cache, uri, None if names is None else list(names))
        specs = {spec.name: (shard, spec.share(rank, world_size)) for shard, spec in found}
        used = list({id(shard): shard for shard, _ in found}.values())
        return Checkpoint(cache, owned, used, specs, framework, progress)
    except BaseException:
        if owned:
            cache.close()
        raise


def load_state_dict(
    uri: str,
    *,
    device: Any = "cpu",
    client: CacheClient | None = None,
    names: Iterable[str] | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """The torch tensors of a checkpoint, on a device, for `model.load_state_dict`.

    On the CPU they are views of the cache's own memory, copied page by page where they are written
    to; for another device, a file at a time is copied there, all of it when this returns. The rest
    as `open_safetensors`.
    """
    _check_there("torch", uri)
    copies = copies_to(device)
    with open_safetensors(
        uri, client=client, framework="torch", names=names, rank=rank, world_size=world_size,
        progress=progress,
    ) as checkpoint:  # fmt: skip
        state = {name: copies.copy(tensor) for name, tensor in checkpoint.items()}
        copies.finish()
        return state


def _check_there(framework: str, uri: str) -> None:
    if find_spec(framework) is None:
        raise ImportError(
            f"{uri}: its tensors cannot be made, because {framework} is not installed:"
            f" {_HOW_TO_GET[framework]}"
        )


def _opened(
    client: CacheClient, uri: str, names: list[str] | None
) -> list[tuple[Shard, TensorSpec]]:
    """The tensors that are wanted, in file order, each with its file."""
    if not uri.endswith(_INDEX):
        tensors = Shard.open(client, uri)
        return _picked(tensors, tensors.header.tensors if names is None else names)
    files = shards(uri, client.read(uri))
    if names is not None:
        known = {name for held in files.values() for name in held}
        for name in names:
            if name not in known:
                raise _unknown(name, known)
        wanted = set(names)
        files = {file: [name for name in held if name in wanted] for file, held in files.items()}
    folder = uri.rpartition("/")[0]
    found = []
    for file, held in files.items():
        if held:
            shard = Shard.open(client, f"{folder}/{file}")
            missing = [name for name in held if name not in shard.header.tensors]
            if missing:
                raise CorruptCheckpoint(
                    f"{shard.uri}: tensor {missing[0]!r} is not there, though {uri} says so"
                )
            found += _picked(shard, held)
    return found


def _picked(shard: Shard, names: Iterable[str]) -> list[tuple[Shard, TensorSpec]]:
    there = shard.header.tensors
    wanted = dict.fromkeys(names)
    for name in wanted:
        if name not in there:
            raise _unknown(name, there)
    return [(shard, spec) for name, spec in there.items() if name in wanted]


def _unknown(name: str, known: Iterable[str]) -> KeyError:
    near = get_close_matches(str(name), list(known), 1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return KeyError(f"no tensor {name!r} is in this checkpoint, or was wanted of it{hint}")
