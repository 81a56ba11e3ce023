"""One safetensors file: its header, and its tensors, fetched as few ranges as they allow.

Rules: the header is read once, in one read unless it is longer than HEAD_BYTES; before a byte of a
tensor is fetched, the header is proven to fit the file. All reads are of the version that the
header came from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cachesvc_client.client import CacheClient
from cachesvc_client.pinned import PinnedObject
from cachesvc_client.tensors.header import LENGTH_BYTES, Header, TensorSpec, data_start, parse
from cachesvc_client.tensors.progress import Tell
from cachesvc_client.tensors.views import numpy_views, torch_views

HEAD_BYTES = 256 << 10
_VIEWS = {"numpy": numpy_views, "torch": torch_views}
FRAMEWORKS = tuple(_VIEWS)


class Shard:
    """A file of tensors, open: pinned to the version that its header was read from."""

    def __init__(self, uri: str, pinned: PinnedObject, header: Header) -> None:
        self.uri = uri
        self.header = header
        self._pinned = pinned

    @classmethod
    def open(cls, client: CacheClient, uri: str) -> Shard:
        """Raises CorruptCheckpoint if it is no whole safetensors file, else as a read does."""
        pinned = client.pin(uri)
        head = pinned.read(0, min(HEAD_BYTES, pinned.size_bytes))
        start = data_start(uri, pinned.size_bytes, head)
        if start > len(head):
            head += pinned.read(len(head), start)
        return cls(uri, pinned, parse(uri, head[LENGTH_BYTES:start], start, pinned.size_bytes))

    def fetch(
        self, specs: Iterable[TensorSpec], framework: str, told: Tell | None = None
    ) -> dict[str, Any]:
        """Tensors of this file, or rows of them, as views of one Region, by name."""
        wanted = list(specs)
        region = self._pinned.map([(spec.start, spec.end) for spec in wanted], told)
        view = _VIEWS[framework](region)
        return {spec.name: view(spec) for spec in wanted}
