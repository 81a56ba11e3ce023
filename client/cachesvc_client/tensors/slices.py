"""A part of a tensor by its index, of which only the rows that it touches are fetched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cachesvc_client.tensors.header import TensorSpec


class TensorSlice:
    """A tensor that is fetched when it is indexed, as of `safe_open(...).get_slice(name)`.

    `part[3]`, `part[10:20]`, `part[10:20, :, 5]`: the rows of the first dimension that the index
    touches are fetched; the rest of the index is applied to them.
    """

    def __init__(self, spec: TensorSpec, fetch: Callable[[TensorSpec], Any]) -> None:
        self._spec = spec
        self._fetch = fetch

    def get_shape(self) -> list[int]:
        return list(self._spec.shape)

    def get_dtype(self) -> str:
        return self._spec.dtype

    def __getitem__(self, index: Any) -> Any:
        """The part, in the checkpoint's framework. Raises IndexError for a row that is not there;
        ValueError where rows do not begin and end with a byte (4-bit types).
        """
        whole = index if isinstance(index, tuple) else (index,)
        first, rest = (whole[0], whole[1:]) if whole else (Ellipsis, ())
        if not self._spec.shape or not isinstance(first, int | slice):
            return self._fetch(self._spec)[index]
        rows, inner = _rows(first, self._spec.shape[0], self._spec.name)
        return self._fetch(self._spec.rows(rows.start, rows.stop))[(inner, *rest)]


def _rows(first: int | slice, count: int, name: str) -> tuple[range, int | slice]:
    """The rows that an index touches, from the least to the most, and the index among these."""
    if isinstance(first, int):
        row = first + count if first < 0 else first
        if not 0 <= row < count:
            raise IndexError(f"tensor {name!r} has {count} rows, and none at {first}")
        return range(row, row + 1), 0
    touched = range(*first.indices(count))
    if not touched:
        return range(0), slice(0, 0)
    return range(min(touched), max(touched) + 1), slice(None, None, first.step)
