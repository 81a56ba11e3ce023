"""A node with gRPC messages of MESSAGE_BYTES of data and a server with SERVER_OPTIONS (JSON).

`python -m benchmarks.sweep_node node ...` takes the options of `cachesvc node`; the two come from
the environment.
"""

from __future__ import annotations

import json
import os
from typing import Any

import grpc

from cachesvc import cli, service


def main() -> None:
    service.CHUNK_BYTES = int(os.environ["MESSAGE_BYTES"])
    more = [tuple(option) for option in json.loads(os.environ["SERVER_OPTIONS"])]
    make_server: Any = grpc.server

    def server(*given: Any, options: list[tuple[str, Any]], **named: Any) -> Any:
        return make_server(*given, options=[*options, *more], **named)

    grpc.server = server  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
