"""Sending an object's bytes: from file to socket by the kernel, paced, stopped by faults.

Rules
- Honest bytes go by sendfile and never enter the interpreter, but for small bodies, where one write
  is quicker.
- Fewer bytes than Content-Length promised always end the connection.
- The log entry counts a piece before it leaves and is set right if it doesn't.

Story: `send` announces the answer, then cuts its segments into pieces that end at stops and at the
pace's steps.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator

from aiohttp.web import BaseRequest, Response, StreamResponse

from cachesvc.devorigin.answer import FILE, FLIPPED, Answer, Segment, Stop
from cachesvc.devorigin.faults import Pace
from cachesvc.devorigin.folder import OpenObject
from cachesvc.devorigin.log import Entry

_SMALL_BYTES = 64 << 10
_PACED_STEP_BYTES = 256 << 10
_STEP_BYTES = 8 << 20
_COPY_BYTES = 1 << 20
_INVERTED = bytes(255 - value for value in range(256))
_LINGER_NOT = struct.pack("ii", 1, 0)


async def send(
    request: BaseRequest, opened: OpenObject, answer: Answer, entry: Entry, mb_s: float
) -> StreamResponse:
    """Send the answer and return the finished response. mb_s: 10^6 bytes a second, 0 is no limit.

    Raises:
        ConnectionError: the client is gone, or the file failed in mid-body: drop the connection.
            The entry tells how much was sent.
    """
    length = answer.length_bytes
    entry.status = answer.status
    plain = all(segment.source == FILE for segment in answer.segments)
    if plain and length <= _SMALL_BYTES and not answer.stops and not mb_s:
        return _small(opened, answer, entry)
    response = StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = length
    await response.prepare(request)
    try:
        await _send_body(_Body(request, response, opened, entry), answer, mb_s)
    except ConnectionError:
        raise
    except OSError as error:  # too late for an error answer
        raise ConnectionAbortedError(f"{opened.file.name!r} failed: {error}") from error
    return response


async def _send_body(body: _Body, answer: Answer, mb_s: float) -> None:
    step = _PACED_STEP_BYTES if mb_s else _STEP_BYTES
    pace = Pace(mb_s) if mb_s else None
    left = answer.length_bytes
    for piece in _pieces(answer, step):
        if isinstance(piece, Stop):
            if not await body.stop(piece):
                break
            continue
        if pace:
            await pace.wait(piece.length_bytes)
        left -= piece.length_bytes
        await body.send(piece, last=not left)


def _small(opened: OpenObject, answer: Answer, entry: Entry) -> StreamResponse:
    data = b"".join(opened.read(part.offset, part.length_bytes) for part in answer.segments)
    if len(data) != answer.length_bytes:
        raise OSError(f"{opened.file.name!r} was cut while it was being sent")
    entry.body_bytes = len(data)
    return Response(status=answer.status, headers=answer.headers, body=data)


def _pieces(answer: Answer, step_bytes: int) -> Iterator[Segment | Stop]:
    stops = list(answer.stops)
    sent = 0
    for segment in answer.segments:
        done = 0
        while done < segment.length_bytes:
            while stops and stops[0].at_bytes <= sent:
                yield stops.pop(0)
            length = min(step_bytes, segment.length_bytes - done)
            if stops:
                length = min(length, stops[0].at_bytes - sent)
            yield Segment(segment.offset + done, length, segment.source)
            done += length
            sent += length
    yield from stops


class _Body:
    """The body of one response under way."""

    def __init__(
        self, request: BaseRequest, response: StreamResponse, opened: OpenObject, entry: Entry
    ) -> None:
        self._request = request
        self._response = response
        self._opened = opened
        self._entry = entry

    async def send(self, piece: Segment, *, last: bool) -> None:
        before = self._entry.body_bytes
        self._entry.body_bytes = before + piece.length_bytes
        if last:
            self._entry.end()
        if piece.source == FILE:
            await self._sendfile(piece, before)
        else:
            await self._copy(piece)

    async def stop(self, stop: Stop) -> bool:
        """Let the fault happen; whether the body goes on after it."""
        transport = self._transport()
        if stop.fault.kind == "stall":
            await asyncio.sleep(stop.fault.delay_ms / 1000)
            return True
        self._entry.end()
        if stop.fault.kind == "cut":
            transport.close()
        else:
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            transport.abort()
        return False

    async def _sendfile(self, piece: Segment, before: int) -> None:
        file = self._opened.file
        os.lseek(file.fileno(), piece.offset, os.SEEK_SET)
        transport = self._transport()
        sent = -1
        try:
            sent = await asyncio.get_running_loop().sendfile(
                transport, file, piece.offset, piece.length_bytes
            )
        finally:
            if sent != piece.length_bytes:
                at = os.lseek(file.fileno(), 0, os.SEEK_CUR)
                self._entry.body_bytes = before + max(0, at - piece.offset)
        if sent != piece.length_bytes:
            raise ConnectionAbortedError(f"{file.name!r} was cut while it was being sent")

    async def _copy(self, piece: Segment) -> None:
        for at in range(0, piece.length_bytes, _COPY_BYTES):
            length = min(_COPY_BYTES, piece.length_bytes - at)
            if piece.source == FLIPPED:
                data = self._opened.read(piece.offset + at, length).translate(_INVERTED)
            else:
                data = bytes(length)
            await self._response.write(data)

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        return transport
