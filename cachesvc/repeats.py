"""Large hot reads asked for again: the frame that answered them, and the files that it speaks of.

Story: training jobs and servers ask for the same ranges of the same version thousands of times, of
several blocks at once, or as files (bytes of one range within a block are lone_reads.py's). The
first time the lane goes all the way (reader.py) and has `keep` remember the frame and where the
bytes stand. From then on the same request is found by its bytes, its files are pinned, and the
answer is on its way (docs/decisions/0023-slow-places-of-memory.md).

Rules
- Only hits that leave from files as they stand: their receiver checks them. What is checked here is
  checked each time (reader.py), or kept by small.py.
- What is kept is good only while the store still has those very files open for the blocks, as their
  pages and checksums then are. Eviction, a failed check, a lost device and a file closed for want
  of descriptors all end it: it is forgotten, and the request goes all the way. So is what is kept
  of an object of which somebody asks with `verify`.
- A request that names its version has one right answer for ever, so no age is asked for here. The
  epoch that an answer tells is the node's present one, or the answer is made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cachesvc.answer import FilePart, Segment
from cachesvc.core.blocks import Slice
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectName
from cachesvc.disk.base import BlockFile
from cachesvc.kept import Kept
from cachesvc.lane_answer import ReadyHit
from cachesvc.lane_sending import Item
from cachesvc.passing import PassedPart
from cachesvc.pins import Pin
from cachesvc.store import Store

MAX_KEPT_BYTES = 16 << 20  # of requests, frames and what it takes to keep them
_ENTRY_BYTES = 1024  # of memory that an entry takes beside its request and frame
_SLICE_BYTES = 512
_Key = tuple[bytes, bool]  # the request, and whether block files are passed to its sender


@dataclass(slots=True)
class Repeat:
    """An answer as it was sent. passed: with the descriptors of its files. parts: what it has of
    blocks, and their files.
    """

    frame: memoryview
    epoch: int
    passed: bool
    parts: list[tuple[Slice, BlockFile]]
    size_bytes: int
    used: bool = False


class Repeats:
    """The large reads of one node's lane. Any thread may call."""

    def __init__(self, store: Store, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._store = store
        self._kept: Kept[_Key, Repeat] = Kept(max_kept_bytes)

    @property
    def kept_bytes(self) -> int:
        return self._kept.size_bytes

    def answer(self, frame: bytes, passes: bool, epoch: int) -> ReadyHit | None:
        """The answer to the whole frame of a request, or None: it must go the common way. Waits
        for no one. passes: its sender may be passed files. epoch: the node's present one.
        """
        kept = self._kept.get((frame, passes))
        if kept is None:
            return None
        pins: list[Pin] = []
        if kept.epoch == epoch:
            for part, file in kept.parts:
                pin = self._store.pin_open(part.block.id, file)
                if pin is None:
                    break
                pins.append(pin)
        if len(pins) < len(kept.parts):
            for pin in pins:
                pin.close()
            self._kept.drop((frame, passes), kept)
            return None
        kept.used = True
        items: list[Item] = [kept.frame]
        if kept.passed:
            items = [PassedPart(kept.frame, pins)]
        else:
            items += [
                FilePart(pin, part.start, part.length_bytes)
                for pin, (part, _) in zip(pins, kept.parts, strict=True)
            ]
        return ReadyHit(items, pins, [part for part, _ in kept.parts])

    def forget(self, name: ObjectName) -> None:
        """Somebody was sent wrong bytes of the object: what is kept of it is made anew."""
        self._kept.drop_if(
            lambda kept: any(part.block.version.name == name for part, _ in kept.parts)
        )

    def keep(self, frame: bytes, passes: bool, repeat: Repeat) -> None:
        """Remember how the request with this frame was answered."""
        repeat.size_bytes += len(frame)
        self._kept.keep((frame, passes), repeat)


def repeat_of(
    request: ReadRequest, segments: Sequence[Segment], items: Sequence[Item], epoch: int
) -> Repeat | None:
    """What there is to remember of a hit, taken down before it is sent, which uses it up. None: it
    cannot be sent again like this.
    """
    frame, pins = items[0], [one.pin for one in segments]
    passed = isinstance(frame, PassedPart)
    if isinstance(frame, PassedPart):
        whole = len(items) == 1 and frame.pins == pins
        frame = frame.frame
    else:
        whole = len(items) == 1 + len(segments) and all(_from_file(one) for one in segments)
    if request.version is None or not segments or not whole:
        return None
    first = segments[0]
    if not passed and request.ranges == ((first.start, first.start + first.length_bytes),):
        return None  # lone_reads.py has it
    assert isinstance(frame, memoryview), "an answer begins with a frame"
    parts = []
    for one, pin in zip(segments, pins, strict=True):
        assert pin is not None, "what is stored is sent from pinned files"
        block = pin.held.trailer.block
        start = one.start - block.start
        parts.append((Slice(block, start, start + one.length_bytes), pin.held.file))
    size_bytes = len(frame) + _ENTRY_BYTES + _SLICE_BYTES * len(parts)
    return Repeat(frame, epoch, passed, parts, size_bytes)


def _from_file(segment: Segment) -> bool:
    """Whether all of it leaves from its file, as it stands there."""
    return len(segment.parts) == 1 and isinstance(segment.parts[0], FilePart)
