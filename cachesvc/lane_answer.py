"""Answers of the lanes as what is sent: frames, bodies, files.

Rules: a header stays within its budget, so that an answer of many segments comes in several frames;
small neighbours in memory become one, so that a small answer is one send.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cachesvc.answer import Answer, Segment
from cachesvc.core.blocks import Slice
from cachesvc.core.errors import CacheError
from cachesvc.lane_sending import Item
from cachesvc.passing import MAX_DESCRIPTOR_COUNT, Files, PassedPart
from cachesvc.pins import Pin
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc.wire.frame import Kind, encode
from cachesvc.wire.v1 import cache_pb2

_JOIN_BYTES = 128 << 10  # parts up to here are sent together with their header
_HEADER_BUDGET_BYTES = 48 << 10  # of checksums in one frame's header


@dataclass(slots=True)
class ReadyHit:
    """A hit, ready to be sent; whoever has it closes it. slices: what it has of blocks."""

    items: list[Item]
    pins: list[Pin]
    slices: list[Slice]

    def close(self) -> None:
        for pin in self.pins:
            pin.close()


def hit_items(answer: Answer, epoch: int) -> list[Item]:
    """A hit: one frame, unless its checksums overflow a header, and the parts of its bodies."""
    items: list[Item] = []
    groups = list(_groups(answer.segments))
    for number, group in enumerate(groups):
        files = Files()
        head = ReadHead(
            tuple(head_of(segment, files) for segment in group),
            answer.version if number == 0 else None,
            answer.fresh_for_s,
            last=number == len(groups) - 1,
            epoch=epoch,
        )
        items.append(read_frame(head, files))
        for segment in group:
            items += segment.parts
    return joined(items)


def head_of(segment: Segment, files: Files) -> SegmentHead:
    """What a header says of a segment; a file that it stands in is numbered."""
    head = SegmentHead(segment.start, segment.length_bytes, segment.source, segment.checksums)
    if segment.file_offset is None:
        return head
    assert segment.pin is not None, "a file is passed while it is pinned"
    return replace(head, descriptor=files.number(segment.pin), file_offset=segment.file_offset)


def read_frame(head: ReadHead, files: Files) -> Item:
    """Prefix and header, and the files that go with them."""
    header = codec.pack_read_head(head).SerializeToString()
    frame = memoryview(encode(Kind.READ_ANSWER, header, head.body_bytes))
    return PassedPart(frame, files.pins) if files.pins else frame


def error_frame(error: CacheError) -> bytes:
    return encode(Kind.READ_ANSWER, codec.pack_error_head(error).SerializeToString())


def stat_error_frame(error: CacheError) -> bytes:
    message = cache_pb2.StatAnswer(error=codec.error_message(error))
    return encode(Kind.STAT_ANSWER, message.SerializeToString())


def _groups(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Segments whose descriptions fit one header; one empty group for an empty answer."""
    group: list[Segment] = []
    budget = 0
    for segment in segments:
        need = len(segment.checksums) + 64
        full = segment.file_offset is not None and len(group) == MAX_DESCRIPTOR_COUNT
        if group and (full or budget + need > _HEADER_BUDGET_BYTES):
            yield group
            group, budget = [], 0
        group.append(segment)
        budget += need
    yield group


def joined(items: Sequence[Item]) -> list[Item]:
    """Small neighbours in memory become one: one send for a small answer."""
    out: list[Item] = []
    pending: list[memoryview] = []
    for item in [*items, None]:
        if isinstance(item, memoryview) and len(item) <= _JOIN_BYTES:
            pending.append(item)
            continue
        if pending:
            out.append(memoryview(b"".join(pending)) if len(pending) > 1 else pending[0])
            pending = []
        if item is not None:
            out.append(item)
    return out
