"""What to answer a read with, decided once for boto3 and aiobotocore: a generator that yields what
it needs and leaves the doing to `sync` and `aio`.

Story: the fields that S3 gave this client with the object are looked up, or asked for by a HEAD
with the client's own credentials. Then the cache gives its version and the first bytes. If fields
and version belong together, that is the answer; if not, the fields are asked for once more, and if
S3 has another version by then, the nodes are told, and this read is S3's.

Rules
- A HEAD proves that the client may GET, except with SSE-KMS, where GET needs kms:Decrypt too: there
  one byte is read as well.
- A HEAD that S3 refuses, a condition that fails, a range without bytes: S3 answers the read.
- What the cache cannot answer for is S3's for a while, without a question (`refusals`).
- No byte is promised before the first ones are in hand.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from cachesvc.core import object_checksums
from cachesvc.core.errors import AccessDenied, CacheError, ObjectNotFound, RangeError
from cachesvc_client.client import CacheClient
from cachesvc_client.intercept.fields import REQUEST_IDS, Fields, FieldTable, fields_of, needs_key
from cachesvc_client.intercept.refusals import Refusals
from cachesvc_client.intercept.request import Passed, Wanted
from cachesvc_client.intercept.stream import Stream, first_window
from cachesvc_client.pinned import PinnedObject


@dataclass(frozen=True, slots=True)
class AskS3:
    """Effect: a call of the client's own. Gives the header fields of the answer, names in lower
    case, once its body has been read; None if S3 refuses. Raises Passed if it is not reached.
    """

    operation: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Blocking:
    """Effect: what this function returns, which may wait for the cache."""

    work: Callable[[], Any]


@dataclass(slots=True)
class Answer:
    """The head of an answer, and where its bytes come from; None where there are none.

    came: the bytes at hand by where they came from (PinnedObject.read).
    """

    status: int
    headers: dict[str, str]
    came: Counter[str]
    pinned: PinnedObject | None = None
    stream: Stream | None = None


Steps = Generator[AskS3 | Blocking, Any, Answer]


def answering(wanted: Wanted, table: FieldTable, refusals: Refusals, cache: CacheClient) -> Steps:
    """The answer to a read. Raises Passed if it is S3's."""
    if refusals.hold(wanted.name):
        raise Passed("uncacheable")
    known = table.get(wanted.who, wanted.name)
    if known is not None and wanted.checksums and wanted.span is None and not known.checksums:
        known = None
    if known is None and wanted.head:
        raise Passed("first")  # S3's answer is heard, and the next one is ours
    if known is not None and not wanted.head and not _matches(wanted, known):
        table.drop(wanted.name)  # the program may know a later version; S3's HEADs are heard anyway
    fields = known or (yield from _asked(wanted, table))
    found = yield from _found(wanted, fields, refusals, cache)
    if found is None and known is not None and not wanted.head:
        table.drop(wanted.name)
        fields = yield from _asked(wanted, table)
        found = yield from _found(wanted, fields, refusals, cache)
    if found is None:
        table.drop(wanted.name)
        refusals.mismatch(wanted.name)
        if not wanted.head:  # by a HEAD just now: the nodes do not know the version yet
            yield Blocking(lambda: cache.invalidate(str(wanted.name)))
        raise Passed("version")
    refusals.clear(wanted.name)
    return found


def _asked(wanted: Wanted, table: FieldTable) -> Generator[AskS3, Mapping[str, str] | None, Fields]:
    """The fields that S3 gives this client now, checksums included."""
    where = {"Bucket": wanted.name.bucket, "Key": wanted.name.key}
    asked_at = table.clock()
    headers = yield AskS3("head_object", where | {"ChecksumMode": "ENABLED"})
    fields = None if headers is None else fields_of(headers, True, asked_at)
    if headers is None or fields is None:
        raise Passed("refused")
    if needs_key(headers):
        first = {"Range": "bytes=0-0", "IfMatch": fields.etag}
        if (yield AskS3("get_object", where | first)) is None:
            raise Passed("refused")
    table.put(wanted.who, wanted.name, fields)
    return fields


def _found(
    wanted: Wanted, fields: Fields, refusals: Refusals, cache: CacheClient
) -> Generator[Blocking, Any, Answer | None]:
    """The answer, if the cache has the version that the fields are of."""
    if not _matches(wanted, fields):
        raise Passed("condition")
    if fields.etag.startswith("W/"):
        refusals.refuse(wanted.name)
        raise Passed("uncacheable")
    size_bytes = fields.size_bytes
    start, end = wanted.span.within(size_bytes) if wanted.span else (0, size_bytes)
    first_end = start if wanted.head else first_window(start, end)
    uri = str(wanted.name)
    came = Counter[str]()
    try:
        pinned, data = yield Blocking(lambda: cache.begin(uri, start, first_end, came))
    except RangeError:
        return None
    except CacheError as error:
        if isinstance(error, ObjectNotFound | AccessDenied):  # which S3 did not say to the client
            refusals.mismatch(wanted.name)
        raise Passed("cache") from error
    if not pinned.version.cacheable:
        refusals.refuse(wanted.name)
        raise Passed("uncacheable")
    if not fields.describe(pinned.version):
        return None
    if len(data) != first_end - start:
        raise AssertionError(f"{uri}: {len(data)} bytes of [{start}, {first_end})")
    status, headers = head_of(wanted, fields, start, end)
    if wanted.head:
        return Answer(status, headers, came)
    return Answer(status, headers, came, pinned, Stream(start, end, data))


def _matches(wanted: Wanted, fields: Fields) -> bool:
    return wanted.if_match is None or wanted.if_match.strip('"') == fields.etag.strip('"')


def head_of(wanted: Wanted, fields: Fields, start: int, end: int) -> tuple[int, dict[str, str]]:
    """Status and header fields of the answer with bytes `[start, end)`. Raises Passed if they
    cannot be told.
    """
    told = wanted.checksums and wanted.span is None
    if told and object_checksums.unclear(fields.etag, fields.said):
        raise Passed("checksum")
    headers = dict(fields.said) if told else object_checksums.without(fields.said)
    headers["content-length"] = str(end - start)
    if "date" in fields.anew:
        headers["date"] = formatdate(usegmt=True)
    for name in REQUEST_IDS:
        if name in fields.anew:
            headers[name] = f"CACHESVC{secrets.token_hex(4).upper()}"
    if wanted.span is None:
        return 200, headers
    headers["content-range"] = f"bytes {start}-{end - 1}/{fields.size_bytes}"
    return 206, headers
