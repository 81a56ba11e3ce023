"""Reads whose answer can be foreseen: of one range within a block, of a version that is named.

Story: if the block is stored, its node answers in one frame, and but for the checksums every byte
before the body is known before it comes (wire/lone.py). A small answer is received whole, by one
receive; of a larger one the head, and then the body where it belongs.

Rules: an answer that begins as foreseen, and whose bytes match, is all that a Receipt asks for; one
that begins otherwise is put back unread, and taken as any other answer is.
"""

from __future__ import annotations

from functools import lru_cache

from xxhash import xxh3_64_digest

from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.request import SMALL_BODY_BYTES, ReadRequest
from cachesvc.core.types import Geometry, ObjectVersion, Source
from cachesvc.wire import lone
from cachesvc.wire.codec import SegmentHead
from cachesvc.wire.frame import PREFIX_BYTES
from cachesvc_client.connection import Connection
from cachesvc_client.effects import Reply, Target
from cachesvc_client.receipt import Check, does_not_match

_KNOWN_COUNT = 1024  # versions whose requests and answers are begun already


@lru_cache(_KNOWN_COUNT)
def _begun(version: ObjectVersion) -> tuple[bytes, bytes]:
    return lone.request_start(version), lone.answer_start(version)


def fits(request: ReadRequest, geometry: Geometry) -> bool:
    """Whether a request is of one range, of a version that is named, within one block."""
    version = request.version
    if version is None or len(request.ranges) != 1 or not version.cacheable:
        return False
    if request.verify or request.bypass or request.descriptors:
        return False
    start, end = request.ranges[0]
    if end is None or not start < end <= version.size_bytes:
        return False
    return start // geometry.block_bytes == (end - 1) // geometry.block_bytes


def ask(
    connection: Connection, request: ReadRequest, target: Target, epoch: int, page_bytes: int
) -> Reply | None:
    """Ask a request that fits. None: its answer has begun to come, and is unread.

    Raises:
        CorruptAnswer: its bytes do not match their checksums.
    """
    version, (start, end) = request.version, request.ranges[0]
    assert version is not None and end is not None, "it fits"  # noqa: PT018 - for types
    asking, answering = _begun(version)
    length_bytes = end - start
    page_count = (end - 1) // page_bytes - start // page_bytes + 1
    sums_bytes = page_count * CHECKSUM_BYTES
    shape = lone.answer_shape(answering, length_bytes, sums_bytes, epoch)
    before, after = lone.answer_around(shape, start)
    border = len(before) + sums_bytes
    head_bytes = border + len(after)
    is_small = page_count == 1 and length_bytes <= SMALL_BODY_BYTES
    connection.send_frame(lone.pack_read(asking, start, end, epoch))
    room = connection.beginning(
        before[:PREFIX_BYTES], head_bytes + length_bytes if is_small else head_bytes
    )
    if room[: len(before)] != before or room[border:head_bytes] != after:
        connection.unread(room)
        return None
    if not is_small:
        head = SegmentHead(start, length_bytes, Source.DISK, bytes(room[len(before) : border]))
        _receive(connection, head, request, target, page_bytes)
    else:
        body = room[head_bytes:]
        digest = xxh3_64_digest(body)  # big endian
        if len(body) != length_bytes or digest[::-1] != room[len(before) : border]:
            connection.unread(room)
            return None
        target.view(start, length_bytes)[:] = body
    connection.clean = True
    return Reply(version, 0.0, {Source.DISK: length_bytes}, epoch)


def _receive(
    connection: Connection, head: SegmentHead, request: ReadRequest, target: Target, page_bytes: int
) -> None:
    """The body, where it belongs."""
    view = target.view(head.start, head.length_bytes)
    check = Check(head, view, page_bytes)
    connection.fill(view, head.start, check.landed)
    if not check.right:
        raise does_not_match(request, head, f"node {connection.address}")
    target.settled(head.start, head.length_bytes)
