"""The keys that the body of a DeleteObjects names.

Rules: a document type is refused, so that nothing is expanded; elements are known by their names
alone, whatever their namespace.
"""

from __future__ import annotations

from xml.parsers import expat

from cachesvc.gateway.errors import S3Error

MAX_KEY_COUNT = 1000  # S3's own limit


class _Keys:
    """A document being read: Delete, Object, Key."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._path: list[str] = []
        self._text: list[str] = []

    def begin(self, name: str, _attributes: dict[str, str]) -> None:
        self._path.append(name.rpartition(" ")[2])
        self._text = []

    def text(self, data: str) -> None:
        self._text.append(data)

    def end(self, _name: str) -> None:
        if self._path == ["Delete", "Object", "Key"]:
            self.found.append("".join(self._text))
        self._path.pop()


def keys_of(body: bytes) -> list[str]:
    """The keys, in order.

    Raises:
        S3Error: 400, it is no such document, or names too many.
    """
    keys = _Keys()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = keys.begin
    parser.EndElementHandler = keys.end
    parser.CharacterDataHandler = keys.text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise _malformed(str(error)) from error
    if not 0 < len(keys.found) <= MAX_KEY_COUNT:
        raise _malformed(f"it names {len(keys.found)} keys, 1 to {MAX_KEY_COUNT} may be")
    return keys.found


def _refuse(*_: object) -> None:
    raise _malformed("it has a document type")


def _malformed(why: str) -> S3Error:
    return S3Error(400, "MalformedXML", f"The XML you provided was not well-formed: {why}")
