"""A node whose gRPC Read uses plain protobuf messages, as generated code would: the peer of ours.

Each message is made when it is sent, as by a handler that yields messages. Everything else is the
same: `python -m benchmarks.plain_node node ...` takes the options of `cachesvc node`.
"""

from __future__ import annotations

from typing import Any

import grpc

from cachesvc import app, cli, service
from cachesvc.answer import Segment, right
from cachesvc.core.memory import fresh_bytes
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc.wire.v1 import cache_pb2


class PlainGrpcService(service.GrpcService):
    """The same service; its messages are made and serialized by protobuf."""

    def _methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        read = grpc.unary_stream_rpc_method_handler(
            self._read, cache_pb2.ReadRequest.FromString, cache_pb2.ReadChunk.SerializeToString
        )
        return super()._methods() | {"Read": read}

    def _message(self, segment: Segment, start: int, end: int) -> Any:
        sums = segment.checksums_of(start, end, self._page_bytes)
        data, view = fresh_bytes(end - start)
        segment.read_into(view, start)
        if not right(view, start, sums, self._page_bytes):
            return None
        head = ReadHead((SegmentHead(start, end - start, segment.source, sums),))
        return cache_pb2.ReadChunk(header=codec.pack_read_head(head), data=data)

    def _prefix(self, head: ReadHead) -> Any:
        return cache_pb2.ReadChunk.FromString(super()._prefix(head))


if __name__ == "__main__":
    app.GrpcService = PlainGrpcService  # type: ignore[attr-defined]
    cli.main()
