"""The counters of a node, in Prometheus's terms.

Rules: one call per outcome, at the end of a step; label values come from small fixed sets, never
from keys. The names are a contract (prefix `cachesvc_`). A series that a dashboard takes a rate of
is there from the start, at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.registry import Collector

LABELLED = tuple[str, ...]

READ_RESULTS = ("hit", "filled", "joined", "bypass", "error")
_ANSWERED = {"head": ("200", "404"), "get": ("200", "206"), "list": ("200",)}
_FAILED = ("error", "403", "500", "503")


class Metrics:
    """All metrics of one node, in a registry of its own, so that several nodes can live in one
    process.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._late = _Late()
        registry.register(self._late)

        def counter(name: str, text: str, labels: LABELLED = ()) -> Counter:
            return Counter(name, text, labels, namespace="cachesvc", registry=registry)

        def gauge(name: str, text: str, labels: LABELLED = ()) -> Gauge:
            return Gauge(name, text, labels, namespace="cachesvc", registry=registry)

        self.requests = counter(
            "requests_total",
            "Requests by op (read, stat, hello) and result (hit, filled, joined, bypass, error)",
            ("op", "result"),
        )
        self.read_bytes = counter(
            "read_bytes_total", "Bytes answered, by where they came from", ("source",)
        )
        self.origin_requests = counter(
            "origin_requests_total",
            "Requests to the origin, by op and HTTP code (or the word error)",
            ("op", "code"),
        )
        self.origin_bytes = counter("origin_bytes_total", "Body bytes received from the origin")
        self.origin_retries = counter("origin_retries_total", "Requests to the origin sent again")
        self.ring_requests = counter(
            "ring_requests_total",
            "Requests of a sidecar to its ring, by op (stat, read) and result (answered, error,"
            " unavailable, wrong; around: no node could, the origin was asked)",
            ("op", "result"),
        )
        self.ring_bytes = counter("ring_bytes_total", "Bytes that a sidecar had from its ring")
        self.s3_requests = counter(
            "s3_requests_total",
            "Requests to the S3 gateway, by S3's name of the operation and HTTP code"
            " (sent, gone: the client hung up behind, or before, the head of its answer)",
            ("op", "code"),
        )
        self.stored_bytes = gauge("stored_bytes", "Bytes that block files take on disk")
        self.stored_blocks = gauge("stored_blocks", "Block files in the index")
        self.capacity_bytes = gauge("capacity_bytes", "Bytes that block files may take")
        self.evicted_bytes = counter(
            "evicted_bytes_total", "Bytes of block files removed, by reason", ("reason",)
        )
        self.corrupt_blocks = counter(
            "corrupt_blocks_total",
            "Blocks that failed a check and were dropped, by check",
            ("check",),
        )
        self.unstored_bytes = counter(
            "unstored_bytes_total", "Filled bytes that no device would take"
        )
        self.device_healthy = gauge("device_healthy", "1: in use, 0: taken out of use", ("device",))
        self.flights = gauge("flights", "Fills under way or waiting for their turn")
        self.connections = gauge("lane_connections", "Open connections of the TCP lane")
        self._begin()

    def before_a_look(self, settle: Callable[[], None]) -> None:
        """Have this called when somebody looks at the metrics, to count what is counted late."""
        self._late.settle.append(settle)

    def _begin(self) -> None:
        for result in READ_RESULTS:
            self.requests.labels("read", result)
        for op in ("stat", "hello"):
            self.requests.labels(op, "hit")
            self.requests.labels(op, "error")
        for source in ("disk", "peer", "origin"):
            self.read_bytes.labels(source)
        for op, codes in _ANSWERED.items():
            for code in codes + _FAILED:
                self.origin_requests.labels(op, code)
        for reason in ("capacity", "corrupt", "lost"):
            self.evicted_bytes.labels(reason)
        for check in ("trailer", "page", "length"):
            self.corrupt_blocks.labels(check)


class _Late(Collector):
    """Has no metrics. The first in its registry, so that those behind it are up to date."""

    def __init__(self) -> None:
        self.settle: list[Callable[[], None]] = []

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        for settle in self.settle:
            settle()
        return []
