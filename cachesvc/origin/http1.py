"""As much of HTTP/1.1 as one GET needs: the head of an answer, and its body landed in place.

Rules: the head is at most HEAD_MAX_BYTES; what is not understood is refused (WrongAnswer), never
guessed; body bytes go from the kernel straight into the caller's buffer, except the few that
arrived together with the head.

Why not http.client: its buffered reader loses count of the bytes that had landed when a connection
is cut, and a retry that resumes behind them needs that count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

HEAD_MAX_BYTES = 64 << 10
LINE_MAX_BYTES = 256
_HEAD_RECEIVE_BYTES = 16 << 10


class WrongAnswer(Exception):
    """The other end sent something that is not the answer to our request."""


class CutShort(Exception):
    """The connection ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields of an answer; names in lower case, repeated fields joined by a
    comma.
    """

    status: int
    keep_alive: bool
    fields: dict[str, str]

    @property
    def chunked(self) -> bool:
        return "transfer-encoding" in self.fields

    @property
    def length_bytes(self) -> int | None:
        """Content-Length, None where there is none. Raises WrongAnswer if it is no number."""
        text = self.fields.get("content-length")
        return None if text is None else _number(text, 10)


class Answer:
    """One answer being read from a connection.

    receive: fills part of a buffer, waiting for at least one byte; 0 is the end of the connection.
    With `all_of_it` it should rather wait until the part is full, or for a while.
    """

    __slots__ = ("_left", "_receive", "head")

    def __init__(self, receive: Callable[[memoryview, bool], int]) -> None:
        self._receive = receive
        self._left = memoryview(b"")
        raw = self._read_head()
        while (head := parse_head(raw)).status // 100 == 1:
            raw = self._read_head()
        self.head = head

    @property
    def drained(self) -> bool:
        """Whether nothing that has been received is left over."""
        return not self._left

    def _read_head(self) -> bytes:
        held = bytearray(self._left)
        with memoryview(bytearray(_HEAD_RECEIVE_BYTES)) as buffer:
            while (end := held.find(b"\r\n\r\n")) < 0:
                if len(held) > HEAD_MAX_BYTES:
                    raise WrongAnswer(
                        f"the head of the answer has more than {HEAD_MAX_BYTES} bytes"
                    )
                count = self._receive(buffer, False)
                if not count:
                    raise CutShort("the connection was closed before the answer")
                held += buffer[:count]
        raw = bytes(held)
        self._left = memoryview(raw)[end + 4 :]
        return raw[:end]

    def read_some(self, part: memoryview) -> int:
        """Some bytes of the body into `part`; 0 at the end of the connection."""
        if self._left:
            count = min(len(part), len(self._left))
            part[:count] = self._left[:count]
            self._left = self._left[count:]
            return count
        return self._receive(part, True)

    def read_line(self) -> bytes:
        """One line of the chunked coding, without its end."""
        line = bytearray()
        with memoryview(bytearray(1)) as one:
            while not line.endswith(b"\r\n"):
                if len(line) > LINE_MAX_BYTES:
                    raise WrongAnswer(f"a chunk's header has more than {LINE_MAX_BYTES} bytes")
                if not self.read_some(one):
                    raise CutShort("the connection was closed within a chunk's header")
                line += one
        return bytes(line[:-2])

    def read_chunk_size(self) -> int:
        return _number(self.read_line().split(b";")[0].decode("latin-1").strip(), 16)

    def read_small_body(self, limit_bytes: int) -> bytes | None:
        """The body of an error answer, or None where it is not framed by a Content-Length within
        the limit.
        """
        length_bytes = self.head.length_bytes
        if self.head.chunked or length_bytes is None or length_bytes > limit_bytes:
            return None
        body = bytearray(length_bytes)
        got = 0
        with memoryview(body) as view:
            while got < length_bytes:
                with view[got:] as part:
                    count = self.read_some(part)
                if not count:
                    return None
                got += count
        return bytes(body)


def parse_head(raw: bytes) -> Head:
    """The head of an answer, without its final empty line. Raises WrongAnswer."""
    status_line, *lines = raw.split(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    code = rest[:3]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not (len(code) == 3 and code.isdigit()):
        raise WrongAnswer(f"the answer is no HTTP/1.1: it begins with {status_line[:40]!r}")
    fields: dict[str, str] = {}
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        name = raw_name.decode("latin-1").lower()
        if not colon or not name or name != name.strip() or any(sign in name for sign in " \t\r\n"):
            raise WrongAnswer(f"the answer holds a header line that is none: {line[:40]!r}")
        value = raw_value.decode("latin-1").strip(" \t")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    connection = fields.get("connection", "").lower()
    keep_alive = "keep-alive" in connection if version == b"HTTP/1.0" else "close" not in connection
    return Head(int(code), keep_alive, fields)


def _number(text: str, base: int) -> int:
    digits = "0123456789abcdef"[:base]
    if not 0 < len(text) < 20 or any(sign not in digits for sign in text.lower()):
        raise WrongAnswer(f"{text[:40]!r} stands where a length should")
    return int(text, base)
