"""Small reads of a named version over a lane: one send, one receive, one comparison.

Rules: what the answer of a hot small read must look like is known before it comes, but for its
checksum (wire/lone.py). An answer that looks so, and whose bytes match, is all that a Receipt asks
for; any other is put back unread, and taken as any other answer is.
"""

from __future__ import annotations

from functools import lru_cache

from xxhash import xxh3_64_digest

from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.request import SMALL_BODY_BYTES, ReadRequest
from cachesvc.core.types import ObjectVersion, Source
from cachesvc.wire import lone
from cachesvc.wire.frame import PREFIX_BYTES
from cachesvc_client.connection import Connection
from cachesvc_client.effects import Reply, Target

_KNOWN_COUNT = 1024  # versions whose requests and answers are begun already


@lru_cache(_KNOWN_COUNT)
def _begun(version: ObjectVersion) -> tuple[bytes, bytes]:
    return lone.request_start(version), lone.answer_start(version)


def fits(request: ReadRequest, page_bytes: int) -> bool:
    """Whether a request is a small read: of one range, within one page."""
    version = request.version
    if version is None or len(request.ranges) != 1 or not version.cacheable:
        return False
    if request.verify or request.bypass or request.descriptors:
        return False
    start, end = request.ranges[0]
    if end is None or not start < end <= min(start + SMALL_BODY_BYTES, version.size_bytes):
        return False
    return start // page_bytes == (end - 1) // page_bytes


def ask(connection: Connection, request: ReadRequest, target: Target, epoch: int) -> Reply | None:
    """Ask a request that fits. None: its answer has begun to come, and is unread."""
    version, (start, end) = request.version, request.ranges[0]
    assert version is not None and end is not None, "it fits"  # noqa: PT018 - for types
    asking, answering = _begun(version)
    length_bytes = end - start
    shape = lone.answer_shape(answering, length_bytes, CHECKSUM_BYTES, epoch)
    before, after = lone.answer_around(shape, start)
    border = len(before) + CHECKSUM_BYTES
    head_bytes = border + len(after)
    connection.send_frame(lone.pack_read(asking, start, end, epoch))
    room = connection.small_frame(before[:PREFIX_BYTES], head_bytes + length_bytes)
    if room[: len(before)] != before or room[border:head_bytes] != after:
        connection.unread(room)
        return None
    body = room[head_bytes:]
    digest = xxh3_64_digest(body)  # big endian
    if len(body) != length_bytes or digest[::-1] != room[len(before) : border]:
        connection.unread(room)
        return None
    target.view(start, length_bytes)[:] = body
    connection.clean = True
    return Reply(version, 0.0, {Source.DISK: length_bytes}, epoch)
