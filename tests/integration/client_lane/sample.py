"""The object that fake nodes have, and the frames that tell of it."""

from __future__ import annotations

import random

from cachesvc.core.blocks import cuts
from cachesvc.core.format import checksum
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion, Source
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc.wire.frame import Kind, encode

NAME = ObjectName("b", "k")
URI = str(NAME)
DATA = random.Random(11).randbytes(300_000)
VERSION = ObjectVersion(NAME, '"etag"', len(DATA))
GEOMETRY = Geometry()
PAGE = GEOMETRY.page_bytes


def segment(start: int, end: int, source: Source = Source.DISK) -> SegmentHead:
    sums = b"".join(checksum(DATA[s:e]) for s, e in cuts(start, end, PAGE))
    return SegmentHead(start, end - start, source, sums)


def answer(head: ReadHead, body: bytes, body_bytes: int | None = None) -> bytes:
    header = codec.pack_read_head(head).SerializeToString()
    return encode(Kind.READ_ANSWER, header, len(body) if body_bytes is None else body_bytes) + body
