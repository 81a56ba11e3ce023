"""A node whose gRPC Read uses plain protobuf messages, as generated code would: the peer of ours.

Everything else is the same: `python -m benchmarks.plain_node node ...` takes the options of
`cachesvc node`.
"""

from __future__ import annotations

from typing import Any

import grpc

from cachesvc import app, cli, service
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.v1 import cache_pb2


class PlainGrpcService(service.GrpcService):
    """The same service; its messages are made and serialized by protobuf."""

    def _methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        read = grpc.unary_stream_rpc_method_handler(
            self._read, cache_pb2.ReadRequest.FromString, cache_pb2.ReadChunk.SerializeToString
        )
        return super()._methods() | {"Read": read}

    def _chunk(self, head: ReadHead, data: memoryview | bytes = b"") -> Any:
        return cache_pb2.ReadChunk(header=codec.pack_read_head(head), data=bytes(data))


if __name__ == "__main__":
    app.GrpcService = PlainGrpcService  # type: ignore[attr-defined]
    cli.main()
