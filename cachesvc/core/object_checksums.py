"""The checksums of whole objects that S3 keeps (x-amz-checksum-*): with which answers to tell them.
Pure.

Rules: they are told with a whole object only, and to who asked for them. Those of an object that
was uploaded in parts may be of its parts, which not every origin tells by HEAD: then it is not
known what they are of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_PREFIX = "x-amz-checksum-"
_TYPE = "x-amz-checksum-type"
_IN_PARTS = re.compile(r'-[0-9]+"$')

Fields = Iterable[tuple[str, str]]


def unclear(etag: str, fields: Fields) -> bool:
    """Whether there are checksums, and it is not known what they are of. fields: of an answer to
    HEAD, names in lower case.
    """
    names = {name for name, _ in fields if name.startswith(_PREFIX)}
    return bool(names) and _TYPE not in names and _IN_PARTS.search(etag) is not None


def without(fields: Fields) -> dict[str, str]:
    """The other fields."""
    return {name: value for name, value in fields if not name.startswith(_PREFIX)}
