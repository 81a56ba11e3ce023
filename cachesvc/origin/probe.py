"""The first GET of an object of which nothing is known: its answer's head says what there is.

Rules
- The first request names no version. Before a byte lands the head must prove one: status 206 (200
  only for a whole object within the range), a strong ETag, the size, exactly the range asked for
  cut to the object's end, and a Content-Length that agrees. Anything less is UNPROVEN: nothing has
  landed, the connection is closed, and a HEAD must tell.
- Whoever wants to hear of header fields hears them before the sink is told of the version.
- From then on it is a Transfer like any other: a retry carries If-Match and begins behind what has
  landed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime

from cachesvc.core.promise import promised
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.origin.base import ProbeSink
from cachesvc.origin.connections import Connections
from cachesvc.origin.fetch import Outcome, Result, Transfer
from cachesvc.origin.http1 import Answer, Head, WrongAnswer

_FIELD = re.compile("[\t\x20-\x7e\x80-\U0010ffff]*")
Heard = Callable[[ObjectVersion, Mapping[str, str], float, bool], object]


class _Unproven(Exception):
    pass


class ProbeTransfer(Transfer):
    """A Transfer whose `version` is a stand-in until the origin has named it.

    heard: see S3Origin. Called from the thread of the attempt.
    """

    __slots__ = ("_asked_at", "_found", "_heard_by", "_probe_sink")

    def __init__(
        self,
        name: ObjectName,
        wanted: ByteRange,
        sink: ProbeSink,
        connections: Connections,
        read_timeout_ms: int,
        *,
        heard: Heard | None = None,
    ) -> None:
        stand_in = ObjectVersion(name, "", wanted.end)
        super().__init__(stand_in, wanted, sink, connections, read_timeout_ms)
        self._probe_sink = sink
        self._heard_by = heard
        self._asked_at = 0.0
        self._found = False

    def attempt(self, url: str) -> Outcome:
        """See `Transfer.attempt`. UNPROVEN: ask by HEAD."""
        self._asked_at = time.monotonic()
        try:
            return super().attempt(url)
        except _Unproven as error:
            return self._outcome(Result.UNPROVEN, str(error))

    def _condition(self) -> str:
        return super()._condition() if self._found else ""

    def _verify(self, head: Head) -> None:
        if not self._found:
            try:
                version, wanted = self._promised(head)
            except (WrongAnswer, ValueError) as error:
                raise _Unproven(str(error)) from None
            self.version, self.wanted = version, wanted
            self._found = True
            if self._heard_by is not None and (fields := _text(head.fields)) is not None:
                self._heard_by(version, fields, self._asked_at, False)
            self._probe_sink.found(version)
        super()._verify(head)

    def _promised(self, head: Head) -> tuple[ObjectVersion, ByteRange]:
        """The version, and what it has of the range. Raises WrongAnswer, ValueError."""
        length_bytes = None if head.chunked else head.length_bytes
        if not length_bytes:
            raise WrongAnswer("the answer does not say how long it is")
        asked, told = (self.wanted.start, self.wanted.end), head.fields.get("content-range")
        name = self.version.name
        size_bytes, wanted = promised(name, asked, head.status, told, length_bytes)
        etag = head.fields.get("etag", "")
        version = ObjectVersion(name, etag, size_bytes, _modified_ms(head))
        if not version.cacheable:
            raise WrongAnswer(f"ETag {etag!r} is not strong")
        return version, wanted

    def _refusal(self, answer: Answer) -> tuple[bool, Outcome]:
        read_whole, outcome = super()._refusal(answer)
        if not self._found and outcome.result is Result.CHANGED:
            outcome = replace(outcome, result=Result.UNPROVEN)
        return read_whole, outcome


def _modified_ms(head: Head) -> int:
    """As S3's HEAD tells it; 0 if the origin does not."""
    try:
        return int(parsedate_to_datetime(head.fields["last-modified"]).timestamp() * 1000)
    except (KeyError, ValueError, OverflowError):
        return 0


def _text(fields: Mapping[str, str]) -> dict[str, str] | None:
    """Header fields as HTTP clients read them, in UTF-8; None if they can't be."""
    try:
        read = {name: value.encode("latin-1").decode() for name, value in fields.items()}
    except UnicodeDecodeError:
        return None
    return read if all(_FIELD.fullmatch(value) for value in read.values()) else None
