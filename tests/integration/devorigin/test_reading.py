"""The development origin, read: exact answers, and errors by their S3 names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.devorigin.asking import DATA, ETAG, ask


def test_a_get_returns_the_object_with_its_headers(origin: DevOrigin) -> None:
    status, headers, body = ask(origin)
    assert (status, body) == (200, DATA)
    assert headers["etag"] == ETAG
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-length"] == str(len(DATA))
    assert headers["last-modified"].endswith("GMT")
    assert headers["x-amz-request-id"]


def test_a_head_has_the_headers_of_the_get_and_no_body(origin: DevOrigin) -> None:
    _, of_get, _ = ask(origin)
    status, of_head, body = ask(origin, "HEAD")
    assert (status, body) == (200, b"")
    for name in ("etag", "content-length", "last-modified", "accept-ranges", "content-type"):
        assert of_head[name] == of_get[name]


@pytest.mark.parametrize(
    ("span", "start", "end"),
    [
        ("0-0", 0, 1),
        ("5-9", 5, 10),
        ("255999-", 255999, 256000),
        ("1000-", 1000, 256000),
        ("-7", 255993, 256000),
        ("-999999999", 0, 256000),
        ("100-" + "9" * 30, 100, 256000),
        ("0-255999", 0, 256000),
    ],
)
def test_a_range_is_answered_exactly(origin: DevOrigin, span: str, start: int, end: int) -> None:
    status, headers, body = ask(origin, headers={"Range": f"bytes={span}"})
    assert status == 206
    assert body == DATA[start:end]
    assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert origin.requests[-1].range == (start, end)


@pytest.mark.parametrize("span", ["256000-", "999999-1000000", "-0", "9" * 5000 + "-"])
def test_a_range_beyond_the_object_is_416(origin: DevOrigin, span: str) -> None:
    status, headers, body = ask(origin, headers={"Range": f"bytes={span}"})
    assert status == 416
    assert headers["content-range"] == f"bytes */{len(DATA)}"
    assert b"<Code>InvalidRange</Code>" in body


@pytest.mark.parametrize(
    "span", ["bytes=9-5", "bytes=-", "bytes=x-y", "lines=1-2", "bytes=0-1,5-6"]
)
def test_a_range_that_is_no_range_is_ignored(origin: DevOrigin, span: str) -> None:
    status, headers, body = ask(origin, headers={"Range": span})
    assert (status, len(body)) == (200, len(DATA))
    assert "content-range" not in headers


def test_an_empty_object_has_no_ranges(origin: DevOrigin) -> None:
    origin.put("bucket", "empty", b"")
    assert ask(origin, target="/bucket/empty")[::2] == (200, b"")
    assert ask(origin, "HEAD", "/bucket/empty")[1]["content-length"] == "0"
    status, headers, _ = ask(origin, target="/bucket/empty", headers={"Range": "bytes=0-0"})
    assert (status, headers["content-range"]) == (416, "bytes */0")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": ETAG}, 200),
        ({"If-Match": f'"other", {ETAG}'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": f"W/{ETAG}"}, 412),
        ({"If-Match": '"other"', "Range": "bytes=0-9"}, 412),
        ({"If-Match": '"other"', "Range": "bytes=999999-"}, 412),
        ({"If-Match": ETAG, "Range": "bytes=0-9"}, 206),
        ({"If-None-Match": ETAG}, 304),
        ({"If-None-Match": f"W/{ETAG}"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 304),
        ({"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
        ({"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412),
        ({"If-Unmodified-Since": "no date"}, 200),
        ({"If-Range": '"other"', "Range": "bytes=0-9"}, 200),
    ],
)
def test_conditions_decide_the_status(
    origin: DevOrigin, headers: dict[str, str], status: int
) -> None:
    got, _, body = ask(origin, headers=headers)
    assert got == status
    assert (b"<Code>PreconditionFailed</Code>" in body) == (status == 412)
    assert ask(origin, "HEAD", headers=headers)[0] == status


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/bucket/absent", 404, "NoSuchKey"),
        ("GET", "/nowhere/key", 404, "NoSuchBucket"),
        ("GET", "/nowhere?list-type=2", 404, "NoSuchBucket"),
        ("PUT", "/nowhere/key", 404, "NoSuchBucket"),
        ("GET", "/../key", 404, "NoSuchBucket"),
        ("PUT", "/..%2Fup", 400, "InvalidBucketName"),
        ("GET", "/bucket/a%00b", 400, "InvalidURI"),
        ("GET", "/bucket/a%FFb", 400, "InvalidURI"),
        ("GET", "/bucket/" + "k" * 1025, 400, "KeyTooLongError"),
        ("GET", "/bucket/key?acl", 501, "NotImplemented"),
        ("GET", "/bucket?location", 501, "NotImplemented"),
        ("GET", "/bucket", 501, "NotImplemented"),
        ("POST", "/bucket/key?uploads", 501, "NotImplemented"),
        ("POST", "/bucket?delete", 501, "NotImplemented"),
        ("PUT", "/bucket/key?partNumber=1&uploadId=x", 501, "NotImplemented"),
        ("GET", "/bucket?list-type=2&max-keys=x", 400, "InvalidArgument"),
        ("GET", "/bucket?list-type=2&continuation-token=%21", 400, "InvalidArgument"),
        ("DELETE", "/bucket", 409, "BucketNotEmpty"),
    ],
)
def test_what_cannot_be_done_is_an_s3_error_by_name(
    origin: DevOrigin, method: str, target: str, status: int, code: str
) -> None:
    got, headers, body = ask(origin, method, target)
    assert (got, headers["content-type"]) == (status, "application/xml")
    assert f"<Code>{code}</Code>".encode() in body
    assert headers["x-amz-request-id"].encode() in body


def test_an_operation_that_is_not_there_is_named(origin: DevOrigin) -> None:
    assert b"CreateMultipartUpload" in ask(origin, "POST", "/bucket/key?uploads")[2]
    copy = ask(origin, "PUT", "/bucket/new", {"x-amz-copy-source": "/bucket/key"})
    assert copy[0] == 501
    assert b"CopyObject" in copy[2]
    assert ask(origin, target="/bucket/new")[0] == 404


def test_presigned_parameters_are_accepted(origin: DevOrigin) -> None:
    query = "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00&X-Amz-Expires=60&x-id=GetObject"
    assert ask(origin, target="/bucket/key" + query)[2] == DATA


def test_an_absolute_target_is_the_same_object(origin: DevOrigin) -> None:
    assert ask(origin, target="http://elsewhere/bucket/key")[2] == DATA


def test_a_folder_of_files_is_a_bucket_as_it_stands(origin: DevOrigin, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "a"
    folder.mkdir(parents=True)
    (folder / "b.txt").write_bytes(b"by hand")
    os.mkfifo(folder / "fifo")
    (folder / "circle").symlink_to(tmp_path / "mine")
    assert ask(origin, target="/mine/a/b.txt")[2] == b"by hand"
    assert ask(origin, target="/mine/a/fifo")[0] == 404
    assert b"<KeyCount>1</KeyCount>" in ask(origin, target="/mine?list-type=2")[2]
    (folder / "b.txt").write_bytes(b"again, longer")
    assert ask(origin, target="/mine/a/b.txt")[1]["etag"] == (
        f'"{hashlib.md5(b"again, longer").hexdigest()}"'
    )
