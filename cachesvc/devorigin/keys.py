"""Where an object of the development origin lies on disk: keys to paths and back.

Rules
- Pure: no I/O. Paths are tuples of components below the bucket's folder.
- Injective, and no key can leave its bucket: a component is never empty, `.`, `..`, or longer than
  255 bytes.
- An ordinary key is its own path, so that any folder of files is a bucket.

Story: `plain_parts` gives the readable path, or None for a key that can't be one (`a//b`, `../a`,
`a/`, a component of 300 bytes). Every key also has an odd path, used for those keys and for a key
whose plain path is taken by a folder or crosses a file (S3 has `a` and `a/b` side by side, a file
system doesn't). It is the percent-encoded key cut into pieces below the reserved folder:
`.devorigin/%2E%2E%2Fa=`. A piece that goes on ends in `+`, the last one in `=`, so that no odd path
is ever the folder of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote

RESERVED = ".devorigin"  # a bucket's private corner: odd keys and files being written
MAX_COMPONENT_BYTES = 255
MAX_KEY_BYTES = 1024
_PIECE_CHARS = 200


def plain_parts(key: str) -> tuple[str, ...] | None:
    """The components of the readable path, or None where the key can't be a path of its own."""
    parts = tuple(key.split("/"))
    if parts[0] == RESERVED or not all(map(_is_component, parts)):
        return None
    return parts


def odd_parts(key: str) -> tuple[str, ...]:
    """The components of the path that every key has; for all keys below `RESERVED`."""
    text = quote(key, safe="").replace(".", "%2E")
    pieces = [text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS)]
    return (RESERVED, *(piece + "+" for piece in pieces[:-1]), pieces[-1] + "=")


def odd_key(pieces: Sequence[str]) -> str | None:
    """The key of an odd path (its components behind `RESERVED`), or None where no key has it."""
    text = "".join(piece[:-1] for piece in pieces)
    try:
        key = unquote(text, errors="strict")
    except UnicodeDecodeError:
        return None
    return key if key and odd_parts(key)[1:] == tuple(pieces) else None


def is_bucket_name(bucket: str) -> bool:
    """Whether a folder below the root may be a bucket of that name."""
    return _is_component(bucket) and not bucket.startswith((".", "_")) and "/" not in bucket


def _is_component(part: str) -> bool:
    if part in ("", ".", "..") or "\0" in part:
        return False
    return len(part.encode()) <= MAX_COMPONENT_BYTES
