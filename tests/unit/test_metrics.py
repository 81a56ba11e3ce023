"""What a dashboard shows is there from the start, at zero: a rate needs a series to begin from."""

from __future__ import annotations

import pytest

from cachesvc.metrics import Metrics


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("requests_total", {"op": "hello", "result": "error"}),
        ("requests_total", {"op": "read", "result": "joined"}),
        ("requests_total", {"op": "stat", "result": "error"}),
        ("read_bytes_total", {"source": "disk"}),
        ("read_bytes_total", {"source": "peer"}),
        ("origin_requests_total", {"op": "head", "code": "error"}),
        ("origin_requests_total", {"op": "get", "code": "206"}),
        ("origin_requests_total", {"op": "list", "code": "503"}),
        ("evicted_bytes_total", {"reason": "capacity"}),
        ("corrupt_blocks_total", {"check": "page"}),
    ],
)
def test_a_series_is_there_from_the_start(name: str, labels: dict[str, str]) -> None:
    assert Metrics().registry.get_sample_value(f"cachesvc_{name}", labels) == 0
