"""A date that is none, in an answer of the origin, is its error and no defect of ours."""

from __future__ import annotations

import socket

import pytest

from cachesvc.core.errors import OriginError
from tests.integration.s3_origin.servers import NAME, Request, ScriptedServer, opened, run


def test_an_answer_without_sense_names_the_origin() -> None:
    def script(_request: Request, connected: socket.socket) -> bool:
        connected.sendall(
            b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "e"\r\nLast-Modified: soon\r\n\r\n'
        )
        return True

    async def main() -> None:
        with ScriptedServer(script) as server:
            async with opened(server.url, attempts=1) as (origin, _):
                with pytest.raises(OriginError, match=r"key: .* http://127\.0\.0\.1"):
                    await origin.head(NAME)

    run(main())
