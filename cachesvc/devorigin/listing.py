"""ListObjectsV2 and ListBuckets of the development origin: pages of keys, and their XML.

Rules
- Keys come in UTF-8 byte order; a page ends after max-keys keys and common prefixes together.
- A continuation token names the last item of its page, so that pages hold under concurrent writes.

Story: `page` walks the sorted keys once and decides; `objects_xml` reads the attributes of the keys
of that page only.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from cachesvc.devorigin.folder import Folder
from cachesvc.devorigin.http import S3Error, xml_text

MAX_KEYS = 1000
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass(frozen=True, slots=True)
class Page:
    """What one answer lists. last: the item to go on behind, or None at the end."""

    keys: tuple[str, ...]
    prefixes: tuple[str, ...]
    last: str | None


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The parameters of ListObjectsV2, checked.

    Raises (from `parse`):
        S3Error: 400 InvalidArgument, naming the parameter.
    """

    prefix: str
    delimiter: str
    max_keys: int
    after: str  # items up to this one have been listed
    start_after: str
    token: str
    url_encoded: bool

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> ListQuery:
        """From the query of the request."""
        encoding = query.get("encoding-type", "")
        if encoding not in ("", "url"):
            raise _invalid("encoding-type")
        max_keys = query.get("max-keys", str(MAX_KEYS))
        if not (max_keys.isascii() and max_keys.isdigit() and len(max_keys) < 10):
            raise _invalid("max-keys")
        token = query.get("continuation-token", "")
        start_after = query.get("start-after", "")
        return cls(
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            max_keys=min(int(max_keys), MAX_KEYS),
            after=_item(token) if token else start_after,
            start_after=start_after,
            token=token,
            url_encoded=encoding == "url",
        )


def page(keys: Sequence[str], query: ListQuery) -> Page:
    """One page out of the sorted keys with the query's prefix."""
    listed: list[str] = []
    prefixes: list[str] = []
    last = ""
    for key in keys:
        cut = key.find(query.delimiter, len(query.prefix)) if query.delimiter else -1
        item = key if cut < 0 else key[: cut + len(query.delimiter)]
        if item <= query.after or (prefixes and item == prefixes[-1]):
            continue
        if len(listed) + len(prefixes) >= query.max_keys:
            return Page(tuple(listed), tuple(prefixes), last or None)
        (listed if cut < 0 else prefixes).append(item)
        last = item
    return Page(tuple(listed), tuple(prefixes), None)


def objects_xml(folder: Folder, bucket: str, query: ListQuery) -> bytes:
    """The whole answer to ListObjectsV2. Blocks: it walks the bucket and hashes new files.

    Raises:
        S3Error: 404 NoSuchBucket.
    """
    found = page(folder.keys(bucket, query.prefix), query)
    contents = [_object_xml(folder, bucket, key, query) for key in found.keys]
    parts = [
        f"{_HEAD}<ListBucketResult {_NAMESPACE}>",
        _element("Name", bucket),
        _element("Prefix", _shown(query.prefix, query)),
        _element("KeyCount", str(sum(map(bool, contents)) + len(found.prefixes))),
        _element("MaxKeys", str(query.max_keys)),
        _element("IsTruncated", "true" if found.last else "false"),
    ]
    if query.delimiter:
        parts.append(_element("Delimiter", _shown(query.delimiter, query)))
    if query.url_encoded:
        parts.append(_element("EncodingType", "url"))
    if query.start_after:
        parts.append(_element("StartAfter", _shown(query.start_after, query)))
    if query.token:
        parts.append(_element("ContinuationToken", query.token))
    if found.last:
        parts.append(_element("NextContinuationToken", _token(found.last)))
    parts += contents
    for prefix in found.prefixes:
        parts.append(
            f"<CommonPrefixes>{_element('Prefix', _shown(prefix, query))}</CommonPrefixes>"
        )
    return "".join((*parts, "</ListBucketResult>")).encode()


def buckets_xml(folder: Folder) -> bytes:
    """The whole answer to ListBuckets."""
    buckets = "".join(
        f"<Bucket>{_element('Name', name)}{_element('CreationDate', _time(modified_s))}</Bucket>"
        for name, modified_s in folder.buckets()
    )
    owner = "<Owner><ID>devorigin</ID></Owner>"
    return (
        f"{_HEAD}<ListAllMyBucketsResult {_NAMESPACE}>{owner}<Buckets>{buckets}</Buckets>"
        "</ListAllMyBucketsResult>"
    ).encode()


def _object_xml(folder: Folder, bucket: str, key: str, query: ListQuery) -> str:
    try:
        opened = folder.open(bucket, key)
    except S3Error:  # deleted since, or not readable
        return ""
    with opened:
        return (
            f"<Contents>{_element('Key', _shown(key, query))}"
            f"{_element('LastModified', _time(opened.modified_s))}"
            f"{_element('ETag', folder.etag(opened))}"
            f"{_element('Size', str(opened.size_bytes))}"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


def _element(name: str, text: str) -> str:
    return f"<{name}>{xml_text(text)}</{name}>"


def _shown(text: str, query: ListQuery) -> str:
    return quote(text, safe="/") if query.url_encoded else text


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _token(item: str) -> str:
    return base64.urlsafe_b64encode(item.encode()).decode()


def _item(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise _invalid("continuation-token") from error


def _invalid(parameter: str) -> S3Error:
    return S3Error(400, "InvalidArgument", f"The {parameter} provided is incorrect")
