"""Arrays over a Region: they read it where it lies, and it stays as long as they do."""

from __future__ import annotations

from typing import Any

import pytest
from cachesvc_client import CacheClient
from cachesvc_client.region import Region

from cachesvc.core.memory import address_of
from tests.integration.inprocess import InProcessNode
from tests.integration.lane.sample import DATA
from tests.support import NAME

URI = str(NAME)
OFFSET, COUNT = 4096, 300_000


@pytest.fixture
def region(node: InProcessNode, client: CacheClient) -> Any:
    node.put(DATA)
    region = client.map(URI)
    assert isinstance(region, Region)
    return region


def test_a_numpy_array_is_a_view(region: Region) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.frombuffer(region, numpy.uint16, count=COUNT, offset=OFFSET)
    assert array.ctypes.data == address_of(region) + OFFSET
    assert array.tobytes() == DATA[OFFSET : OFFSET + 2 * COUNT]
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(BufferError):
        region.close()
    del array
    region.close()


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_a_torch_tensor_is_a_view(region: Region) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.frombuffer(memoryview(region), dtype=torch.uint8, count=COUNT, offset=OFFSET)
    assert tensor.data_ptr() == address_of(region) + OFFSET
    assert bytes(tensor.tolist()) == DATA[OFFSET : OFFSET + COUNT]
    with pytest.raises(BufferError):
        region.close()
    del tensor
    region.close()


@pytest.mark.parametrize(
    ("start", "end", "asked"),
    [
        (0, None, (0, len(DATA))),
        (10_000, 2_000_000, (8192, 2_000_000 - 8192)),
        (4096, 4097, (4096, 1)),
        (-5000, None, ((len(DATA) - 5000) // 4096 * 4096, 5000 + (len(DATA) - 5000) % 4096)),
        (len(DATA) - 1, 1 << 40, ((len(DATA) - 1) // 4096 * 4096, 1 + (len(DATA) - 1) % 4096)),
        (len(DATA), None, None),
        (1 << 40, None, None),
        (8192, 8192, None),
        (8192, 5, None),
    ],
)
def test_prefetch_asks_for_the_pages_of_a_slice(
    region: Region,
    monkeypatch: pytest.MonkeyPatch,
    start: int,
    end: int | None,
    asked: tuple[int, int] | None,
) -> None:
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(Region, "madvise", lambda _, *what: calls.append(what), raising=False)
    region.prefetch(start, end)
    monkeypatch.undo()
    assert [what[1:] for what in calls] == ([asked] if asked else [])
    region.prefetch(start, end)  # and the kernel takes it
    assert region[:] == DATA
    region.close()


def test_prefetch_of_a_closed_region_is_refused(region: Region) -> None:
    region.close()
    with pytest.raises(ValueError, match="closed"):
        region.prefetch()
