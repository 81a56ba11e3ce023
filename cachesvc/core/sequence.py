"""Who reads in order: from the ranges that were read to where the next one will begin.

Story: the reads of one object version are dealt to a few streams. A read that begins where a stream
is to go on, or before that and ends behind it, continues it. One that begins a little further on is
early, and counts once the stream gets there: a client that reads several ranges at a time has them
overtake each other. One within what the stream has read says nothing. Any other one begins a stream
of its own, and is a doubt that this version is read in order at all; a stream that reaches the
beginning of another takes it over.

Rules: pure and bounded: MAX_STREAMS a version, MAX_EARLY reads a stream. A stream is `in_order` if
it has read two whole blocks, in more reads than there are doubts and twice the early ones: what is
fetched for nothing is paid for, so it is order that has to be proved, and never chance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_STREAMS = 4
MAX_EARLY = 16
NEAR_BLOCKS = 16  # how much further on a read may begin and still be early
MAX_DOUBTS = 8


@dataclass(slots=True, eq=False)
class Stream:
    """One reader's way through a version. `began` and `next`: from which byte it has read, and
    where it goes on. `length_bytes`: read so far, in `reads` reads. `furthest`: up to which byte it
    has asked, the early reads among them.
    """

    began: int
    next: int
    length_bytes: int
    furthest: int
    reads: int = 1
    in_order: bool = False
    early: dict[int, tuple[int, int]] = field(default_factory=dict)

    def take(self, end: int, length_bytes: int, reads: int = 1) -> None:
        """Go on to `end`; what was read before counts once."""
        length_bytes = min(length_bytes, end - self.next)
        self.next = end
        self.furthest = max(self.furthest, end)
        self.length_bytes += length_bytes
        self.reads += reads


class Sequence:
    """The streams of one version."""

    def __init__(self, block_bytes: int) -> None:
        self.streams: list[Stream] = []  # the one that was continued last stands last
        self._block_bytes = block_bytes
        self._doubts = 0

    def read(self, start: int, end: int, length_bytes: int) -> Stream | None:
        """Note a read; the stream that it continues, or is early for, if there is one.

        end: where the next read of one who reads in order will begin: behind this one, or behind
        what such a reader asks of others. length_bytes: of the read.
        """
        near_bytes = NEAR_BLOCKS * self._block_bytes
        for stream in reversed(self.streams):
            if start == stream.next or stream.began < start < stream.next < end:
                self._continue(stream, end, length_bytes)
                return stream
        for stream in reversed(self.streams):
            if stream.began <= start < stream.next:
                return None
            early = stream.next < start <= stream.next + near_bytes
            if early and (start in stream.early or len(stream.early) < MAX_EARLY):
                stream.early[start] = end, length_bytes
                stream.furthest = max(stream.furthest, end)
                return stream
        self._doubts = min(MAX_DOUBTS, self._doubts + bool(self.streams))
        self._join_on(Stream(start, end, length_bytes, end))
        return None

    def _continue(self, stream: Stream, end: int, length_bytes: int) -> None:
        stream.take(end, length_bytes)
        self.streams.remove(stream)
        self._join_on(stream)
        self._doubts = max(0, self._doubts - 1)
        enough = stream.length_bytes >= 2 * self._block_bytes
        stream.in_order = enough and stream.reads > 1 + self._doubts + 2 * len(stream.early)

    def _join_on(self, stream: Stream) -> None:
        """List the stream last, with all that was read already where it goes on."""
        while True:
            early = next((x for at, x in stream.early.items() if at <= stream.next < x[0]), None)
            reached = next((one for one in self.streams if one.began == stream.next), None)
            if early is not None:
                stream.take(*early)
            elif reached is not None:
                self.streams.remove(reached)
                stream.take(reached.next, reached.length_bytes, reached.reads)
                stream.furthest = max(stream.furthest, reached.furthest)
                stream.early |= reached.early
            else:
                break
        stream.early = {at: one for at, one in stream.early.items() if at > stream.next}
        self.streams = [*self.streams[1 - MAX_STREAMS :], stream]
