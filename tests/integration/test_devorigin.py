"""The development origin over real sockets: exact when honest, and every lie visible on demand.

Raw answers are read by http.client and by bare sockets, so that no client library mends what a
fault broke; boto3 proves that a real SDK is content.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from cachesvc.devorigin import DevOrigin, Fault, LoggedRequest, Shape, run
from cachesvc.devorigin.answer import changed_etag
from cachesvc.devorigin.faults import KINDS, FaultPlan
from cachesvc.devorigin.keys import odd_key, odd_parts, plain_parts

DATA = bytes(range(256)) * 1000
ETAG = f'"{hashlib.md5(DATA).hexdigest()}"'

NASTY_KEYS = [
    "plain.txt",
    "a/b/c.bin",
    "a",
    "a/b",
    "a/",
    "a//b",
    "/leading",
    "//two",
    "/",
    "..",
    "../escape",
    "a/../../../../escape",
    ".",
    "./x/.",
    "with space + plus",
    "100%/%2F/%252e",
    "grüße/日本語/😀",
    "e\u0301 is not \u00e9",
    "?query=no&#fragment",
    "back\\slash",
    "quote'\"<xml>&amp;",
    "tab\tnew\nline\x01\x7f",
    ".devorigin/tmp/x",
    ".devorigin/a=",
    "~tilde*star|pipe;semi,comma=equals:colon@at",
    "c" * 300 + "/x",
    "k" * 1024,
    "ü" * 512,
    "d/" * 511 + "e",
    "%" * 1024,
    "." * 1024,
]


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[DevOrigin]:
    with DevOrigin(tmp_path) as running:
        running.put("bucket", "key", DATA)
        yield running


@pytest.fixture
def s3(origin: DevOrigin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client(
        "s3",
        endpoint_url=origin.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


Reply = tuple[int, dict[str, str], bytes]


def ask(
    origin: DevOrigin,
    method: str = "GET",
    target: str = "/bucket/key",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Reply:
    connection = http.client.HTTPConnection(urlsplit(origin.url).netloc, timeout=30)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, response.read()
    finally:
        connection.close()


def raw(origin: DevOrigin, request: bytes) -> tuple[bytes, bytes, bool]:
    """Head and body as they came until the connection ended, and whether it ended by a reset."""
    received = b""
    reset = False
    parts = urlsplit(origin.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(request)
        while True:
            try:
                data = connection.recv(1 << 20)
            except ConnectionResetError:
                reset = True
                break
            if not data:
                break
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body, reset


def raw_get(span: str | None = None, key: str = "key", close: bool = True) -> bytes:
    lines = [f"GET /bucket/{key} HTTP/1.1", "Host: x"]
    lines += [f"Range: bytes={span}"] if span else []
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode()


def header(head: bytes, name: str) -> str | None:
    for line in head.decode().split("\r\n")[1:]:
        left, _, right = line.partition(": ")
        if left.lower() == name.lower():
            return right
    return None


# --- reading


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


# --- keys


def test_no_two_keys_share_a_path_and_every_odd_path_leads_back() -> None:
    odd = [odd_parts(key) for key in NASTY_KEYS]
    assert len(set(odd)) == len(NASTY_KEYS)
    for key, parts in zip(NASTY_KEYS, odd, strict=True):
        assert odd_key(parts[1:]) == key
        for part in (*parts, *(plain_parts(key) or ())):
            assert part not in ("", ".", "..")
            assert len(part.encode()) <= 255


def test_nasty_keys_go_in_and_come_out_by_boto3(origin: DevOrigin, s3: Any, tmp_path: Path) -> None:
    s3.create_bucket(Bucket="nasty")
    for key in NASTY_KEYS:
        s3.put_object(Bucket="nasty", Key=key, Body=key.encode())
    for key in NASTY_KEYS:
        got = s3.get_object(Bucket="nasty", Key=key)
        assert got["Body"].read() == key.encode()
        assert got["ETag"] == f'"{hashlib.md5(key.encode()).hexdigest()}"'
    listed = [item["Key"] for item in s3.list_objects_v2(Bucket="nasty")["Contents"]]
    assert listed == sorted(NASTY_KEYS, key=str.encode)
    assert {path.name for path in tmp_path.iterdir()} == {"bucket", "nasty"}
    assert (tmp_path / "nasty" / "a" / "b" / "c.bin").is_file()
    for key in NASTY_KEYS:
        s3.delete_object(Bucket="nasty", Key=key)
    assert s3.list_objects_v2(Bucket="nasty")["KeyCount"] == 0
    s3.delete_bucket(Bucket="nasty")
    assert not (tmp_path / "nasty").exists()


def test_a_path_is_decoded_exactly_once(origin: DevOrigin) -> None:
    for target, key in [
        ("a+b", "a+b"),
        ("a%2Bc", "a+c"),
        ("%252F", "%2F"),
        ("x%2F..%2Fy", "x/../y"),
    ]:
        origin.put("bucket", key, key.encode())
        assert ask(origin, target=f"/bucket/{target}")[2] == key.encode()
        assert origin.requests[-1].key == key


def test_a_key_moves_to_its_plain_path_when_that_becomes_free(
    origin: DevOrigin, tmp_path: Path
) -> None:
    origin.put("bucket", "x/y", b"below")
    origin.put("bucket", "x", b"beside")
    assert ask(origin, target="/bucket/x")[2] == b"beside"
    ask(origin, "DELETE", "/bucket/x/y")
    origin.put("bucket", "x", b"moved")
    assert ask(origin, target="/bucket/x")[2] == b"moved"
    assert (tmp_path / "bucket" / "x").read_bytes() == b"moved"
    ask(origin, "DELETE", "/bucket/x")
    assert ask(origin, target="/bucket/x")[0] == 404


# --- listing


def test_pages_hold_every_key_once_and_in_order(origin: DevOrigin, s3: Any) -> None:
    keys = sorted(f"p/{index % 7}/{index}" for index in range(100))
    for key in keys:
        origin.put("many", key, b"x")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket="many", PaginationConfig={"PageSize": 13}
    )
    found = [[item["Key"] for item in page["Contents"]] for page in pages]
    assert [key for page in found for key in page] == keys
    assert [len(page) for page in found] == [13] * 7 + [9]


def test_prefix_delimiter_and_start_after_select(origin: DevOrigin, s3: Any) -> None:
    for key in ("a", "b/1", "b/2", "b/c/3", "b!", "é/1", "z"):
        origin.put("tree", key, b"x")
    top = s3.list_objects_v2(Bucket="tree", Delimiter="/")
    assert [item["Key"] for item in top["Contents"]] == ["a", "b!", "z"]
    assert [item["Prefix"] for item in top["CommonPrefixes"]] == ["b/", "é/"]
    assert top["KeyCount"] == 5
    below = s3.list_objects_v2(Bucket="tree", Delimiter="/", Prefix="b/")
    assert [item["Key"] for item in below["Contents"]] == ["b/1", "b/2"]
    assert [item["Prefix"] for item in below["CommonPrefixes"]] == ["b/c/"]
    after = s3.list_objects_v2(Bucket="tree", StartAfter="b/2")
    assert [item["Key"] for item in after["Contents"]] == ["b/c/3", "z", "é/1"]
    assert s3.list_objects_v2(Bucket="tree", Prefix="b/2x")["KeyCount"] == 0
    assert s3.list_objects_v2(Bucket="tree", MaxKeys=0)["IsTruncated"] is False


def test_pages_of_common_prefixes_do_not_repeat_them(origin: DevOrigin, s3: Any) -> None:
    for index in range(30):
        origin.put("tree", f"{index // 3:02}/{index}", b"x")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket="tree", Delimiter="/", PaginationConfig={"PageSize": 3}
    )
    found = [item["Prefix"] for page in pages for item in page["CommonPrefixes"]]
    assert found == [f"{index:02}/" for index in range(10)]


def test_both_forms_of_the_bucket_target_list(origin: DevOrigin) -> None:
    for target in ("/bucket?list-type=2", "/bucket/?list-type=2"):
        status, _, body = ask(origin, target=target)
        assert status == 200
        assert b"<Key>key</Key>" in body
        assert f"<Size>{len(DATA)}</Size>".encode() in body


def test_buckets_are_listed_and_found(origin: DevOrigin, s3: Any) -> None:
    s3.create_bucket(Bucket="second")
    assert [item["Name"] for item in s3.list_buckets()["Buckets"]] == ["bucket", "second"]
    s3.head_bucket(Bucket="second")
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket="third")


# --- writing


def test_a_put_is_read_back_whole_and_its_etag_is_the_md5(origin: DevOrigin) -> None:
    body = os.urandom(3 << 20)
    status, headers, _ = ask(origin, "PUT", "/bucket/new", body=body)
    assert (status, headers["etag"]) == (200, f'"{hashlib.md5(body).hexdigest()}"')
    assert ask(origin, target="/bucket/new")[2] == body


def test_an_aws_chunked_put_is_unwrapped(origin: DevOrigin) -> None:
    framed = (
        b"5;chunk-signature=00\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AA==\r\n\r\n"
    )
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "11",
        "Content-Encoding": "aws-chunked",
    }
    assert ask(origin, "PUT", "/bucket/new", headers, framed)[0] == 200
    assert ask(origin, target="/bucket/new")[2] == b"hello world"


@pytest.mark.parametrize(
    "framed",
    [b"5\r\nhel", b"5\r\nhello!\r\n0\r\n\r\n", b"-5\r\nhello\r\n", b"", b"2\r\nhi\r\n0\r\n\r\n"],
)
def test_a_broken_aws_chunked_put_changes_nothing(
    origin: DevOrigin, tmp_path: Path, framed: bytes
) -> None:
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "5",
    }
    status, _, body = ask(origin, "PUT", "/bucket/key", headers, framed)
    assert status == 400
    assert b"<Code>IncompleteBody</Code>" in body
    assert ask(origin)[2] == DATA
    assert list((tmp_path / "bucket" / ".devorigin" / "tmp").iterdir()) == []


def test_a_put_that_never_ends_changes_nothing(origin: DevOrigin, tmp_path: Path) -> None:
    request = b"PUT /bucket/key HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"
    parts = urlsplit(origin.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(request)
    origin.stop()
    assert list((tmp_path / "bucket" / ".devorigin" / "tmp").iterdir()) == []
    assert (tmp_path / "bucket" / "key").read_bytes() == DATA


def test_a_conditional_put_is_refused_or_done_in_one_step(origin: DevOrigin) -> None:
    assert ask(origin, "PUT", "/bucket/key", {"If-None-Match": "*"}, b"new")[0] == 412
    assert ask(origin, "PUT", "/bucket/key", {"If-Match": '"other"'}, b"new")[0] == 412
    assert ask(origin, "PUT", "/bucket/absent", {"If-Match": ETAG}, b"new")[0] == 404
    assert ask(origin)[2] == DATA
    assert ask(origin, "PUT", "/bucket/absent", {"If-None-Match": "*"}, b"new")[0] == 200
    assert ask(origin, "PUT", "/bucket/key", {"If-Match": ETAG}, b"new")[0] == 200


def test_deleting_is_204_whether_or_not_the_object_is_there(origin: DevOrigin) -> None:
    assert ask(origin, "DELETE")[0] == 204
    assert ask(origin, "DELETE")[0] == 204
    assert ask(origin)[0] == 404


def test_boto3_writes_and_reads_a_large_object(origin: DevOrigin, s3: Any) -> None:
    body = os.urandom(5 << 20)
    s3.put_object(Bucket="bucket", Key="large", Body=body)
    got = s3.get_object(Bucket="bucket", Key="large", Range="bytes=1000000-2999999")
    assert got["Body"].read() == body[1000000:3000000]
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "large"})
    parts = urlsplit(url)
    assert ask(origin, target=f"{parts.path}?{parts.query}")[2] == body


def test_every_overwrite_has_its_own_etag_and_bytes(origin: DevOrigin) -> None:
    for number in range(300):
        body = f"{number:08}".encode()
        etag = origin.put("bucket", "same-size", body)
        _, headers, got = ask(origin, target="/bucket/same-size")
        assert (headers["etag"], got) == (etag, body)


@pytest.mark.slow
def test_an_answer_is_of_one_version_while_the_object_is_overwritten(origin: DevOrigin) -> None:
    versions = [bytes([number]) * 3_000_000 for number in range(8)]
    etags = {f'"{hashlib.md5(body).hexdigest()}"': body for body in versions}
    origin.put("bucket", "busy", versions[0])
    done = threading.Event()
    wrong: list[str] = []
    seen: set[str] = set()

    def read() -> None:
        while not done.is_set():
            _, headers, body = ask(origin, target="/bucket/busy")
            seen.add(headers["etag"])
            if etags[headers["etag"]] != body:
                wrong.append(headers["etag"])

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    turn = 0
    while turn < 60 or len(seen) < 3:
        turn += 1
        origin.put("bucket", "busy", versions[turn % len(versions)])
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


# --- faults


@pytest.mark.parametrize(("kind", "code"), [("503", "SlowDown"), ("500", "InternalError")])
def test_an_error_fault_is_an_error_answer(origin: DevOrigin, kind: str, code: str) -> None:
    origin.faults = [Fault(kind, count=1)]
    status, _, body = ask(origin)
    assert status == int(kind)
    assert f"<Code>{code}</Code>".encode() in body
    assert ask(origin)[0] == 200
    assert [request.faults for request in origin.requests] == [(kind,), ()]


@pytest.mark.parametrize("after_bytes", [0, 1000, 200_000])
def test_cut_closes_the_connection_in_mid_body(origin: DevOrigin, after_bytes: int) -> None:
    origin.faults = [Fault("cut", after_bytes=after_bytes)]
    head, body, reset = raw(origin, raw_get(close=False))
    assert header(head, "Content-Length") == str(len(DATA))
    assert body == DATA[:after_bytes]
    assert not reset
    assert origin.requests[-1].body_bytes == after_bytes


def test_reset_ends_the_connection_by_rst(origin: DevOrigin) -> None:
    origin.faults = [Fault("reset", after_bytes=10)]
    _, body, reset = raw(origin, raw_get(close=False))
    assert reset
    assert DATA.startswith(body)
    assert len(body) <= 10


def test_short_length_sends_less_than_its_content_range_says(origin: DevOrigin) -> None:
    origin.faults = [Fault("short_length", after_bytes=60)]
    head, body, _ = raw(origin, raw_get("100-199"))
    assert header(head, "Content-Range") == f"bytes 100-199/{len(DATA)}"
    assert header(head, "Content-Length") == "60"
    assert body == DATA[100:160]


def test_long_length_sends_more_than_was_asked(origin: DevOrigin) -> None:
    origin.faults = [Fault("long_length", after_bytes=5)]
    head, body, _ = raw(origin, raw_get("100-199"))
    assert header(head, "Content-Range") == f"bytes 100-199/{len(DATA)}"
    assert header(head, "Content-Length") == "105"
    assert body == DATA[100:200] + bytes(5)


@pytest.mark.parametrize(("span", "start"), [("100-199", 99), ("0-99", 1)])
def test_wrong_range_answers_another_offset(origin: DevOrigin, span: str, start: int) -> None:
    origin.faults = [Fault("wrong_range")]
    head, body, _ = raw(origin, raw_get(span))
    assert header(head, "Content-Range") == f"bytes {start}-{start + 99}/{len(DATA)}"
    assert body == DATA[start : start + 100]


def test_full_200_ignores_the_range(origin: DevOrigin) -> None:
    origin.faults = [Fault("full_200")]
    head, body, _ = raw(origin, raw_get("100-199"))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert header(head, "Content-Range") is None
    assert body == DATA


def test_etag_change_answers_other_bytes_under_another_etag(origin: DevOrigin) -> None:
    origin.faults = [Fault("etag_change", method="*")]
    asked = {"If-Match": ETAG, "Range": "bytes=0-199999"}
    status, headers, body = ask(origin, headers=asked)
    assert (status, headers["etag"]) == (206, changed_etag(ETAG))
    assert body == bytes(255 - byte for byte in DATA[:200_000])
    assert ask(origin, "HEAD")[1]["etag"] == changed_etag(ETAG)


def test_no_etag_and_weak_etag_change_only_the_header(origin: DevOrigin) -> None:
    origin.faults = [Fault("no_etag")]
    status, headers, body = ask(origin)
    assert (status, "etag" in headers, body) == (200, False, DATA)
    origin.faults = [Fault("weak_etag", method="HEAD")]
    assert ask(origin, "HEAD")[1]["etag"] == f"W/{ETAG}"
    assert ask(origin)[1]["etag"] == ETAG


def test_slow_first_byte_waits_before_the_status_line(origin: DevOrigin) -> None:
    origin.faults = [Fault("slow_first_byte", delay_ms=80)]
    begun = time.monotonic()
    assert ask(origin)[2] == DATA
    assert time.monotonic() - begun >= 0.08


def test_stall_waits_in_mid_body_and_goes_on(origin: DevOrigin) -> None:
    origin.faults = [Fault("stall", after_bytes=1000, delay_ms=80)]
    begun = time.monotonic()
    _, body, _ = raw(origin, raw_get())
    assert body == DATA
    assert time.monotonic() - begun >= 0.08


def test_a_caller_that_leaves_during_a_stall_holds_nothing_up(origin: DevOrigin) -> None:
    origin.faults = [Fault("stall", after_bytes=10, delay_ms=3_600_000, count=1)]
    parts = urlsplit(origin.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(raw_get())
        assert connection.recv(10)
    assert ask(origin)[2] == DATA


def test_faults_touch_only_what_they_name(origin: DevOrigin) -> None:
    origin.put("bucket", "other", DATA)
    origin.faults = [Fault("503", key_glob="k*", method="HEAD")]
    assert ask(origin, "HEAD")[0] == 503
    assert ask(origin)[0] == 200
    assert ask(origin, "HEAD", "/bucket/other")[0] == 200
    assert ask(origin, target="/bucket?list-type=2")[0] == 200


def test_several_faults_meet_in_one_answer(origin: DevOrigin) -> None:
    origin.faults = [Fault("no_etag"), Fault("cut", after_bytes=7)]
    head, body, _ = raw(origin, raw_get())
    assert header(head, "ETag") is None
    assert body == DATA[:7]
    assert origin.requests[-1].faults == ("no_etag", "cut")


def test_chance_follows_the_seed() -> None:
    fault = Fault("503", probability=0.3)

    def draws(seed: int) -> list[bool]:
        plan = FaultPlan([fault], seed)
        return [bool(plan.draw("GET", "key", ranged=False)) for _ in range(200)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert 20 < sum(draws(1)) < 100


def test_a_fault_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown"):
        Fault("flood")
    with pytest.raises(ValueError, match="probability"):
        Fault("503", probability=2)
    with pytest.raises(ValueError, match="negative"):
        Fault("cut", after_bytes=-1)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_fault_outlives_its_count(origin: DevOrigin, kind: str) -> None:
    origin.faults = [Fault(kind, count=1)]
    raw(origin, raw_get("100-199"))
    head, body, _ = raw(origin, raw_get("100-199"))
    assert (head[:12], body) == (b"HTTP/1.1 206", DATA[100:200])
    assert header(head, "ETag") == ETAG


# --- shape, log, life


def test_a_shaped_answer_takes_its_time_and_is_the_same(tmp_path: Path) -> None:
    with DevOrigin(tmp_path, shape=Shape(first_byte_ms=20, per_connection_mb_s=10)) as origin:
        origin.put("bucket", "key", DATA * 2)
        begun = time.monotonic()
        assert ask(origin)[2] == DATA * 2
        assert time.monotonic() - begun >= 0.02 + len(DATA) * 2 / 10e6
        origin.shape = Shape(first_byte_ms=1, first_byte_p99_ms=3)
        assert ask(origin)[2] == DATA * 2


def test_a_shape_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Shape(first_byte_ms=-1)
    with pytest.raises(ValueError, match="p99"):
        Shape(first_byte_ms=10, first_byte_p99_ms=5)


def test_the_log_tells_what_each_answer_was(origin: DevOrigin) -> None:
    ask(origin, headers={"Range": "bytes=0-199999", "If-Match": ETAG})
    ask(origin, "HEAD", "/bucket/" + quote("abs ent"))
    ask(origin, target="/bucket?list-type=2")
    first, second, third = origin.requests
    assert isinstance(first, LoggedRequest)
    assert (first.method, first.operation, first.bucket, first.key) == (
        "GET",
        "GetObject",
        "bucket",
        "key",
    )
    assert (first.range, first.status, first.body_bytes) == ((0, 200_000), 206, 200_000)
    assert first.if_match == ETAG
    assert first.ended_at is not None
    assert first.started_at <= first.ended_at
    assert (second.key, second.status, second.body_bytes) == ("abs ent", 404, 0)
    assert third.operation == "ListObjectsV2"
    origin.clear_log()
    assert origin.requests == []


def test_the_log_keeps_the_newest(tmp_path: Path) -> None:
    with DevOrigin(tmp_path, log_limit=3) as origin:
        for number in range(5):
            ask(origin, target=f"/bucket/{number}")
        assert [request.key for request in origin.requests] == ["2", "3", "4"]


def test_another_process_reads_the_log_and_sets_faults(origin: DevOrigin) -> None:
    ask(origin)
    (entry,) = json.loads(ask(origin, target="/_devorigin/requests")[2])
    assert (entry["key"], entry["body_bytes"]) == ("key", len(DATA))
    assert ask(origin, "DELETE", "/_devorigin/requests")[0] == 204
    assert origin.requests == []
    faults = json.dumps([{"kind": "503", "count": 1}]).encode()
    assert ask(origin, "PUT", "/_devorigin/faults", body=faults)[0] == 204
    assert origin.faults == (Fault("503", count=1),)
    assert ask(origin)[0] == 503
    for wrong in (b"{", b'[{"kind": "flood"}]', b'[{"sort": "cut"}]', b"3"):
        assert ask(origin, "PUT", "/_devorigin/faults", body=wrong)[0] == 400
    assert ask(origin, "GET", "/_devorigin/other")[0] == 404


@pytest.mark.parametrize("mb_s", [0, 50])
def test_a_client_that_leaves_in_mid_body_leaves_no_noise(
    origin: DevOrigin, caplog: pytest.LogCaptureFixture, mb_s: float
) -> None:
    origin.put("bucket", "large", bytes(64 << 20))
    origin.shape = Shape(per_connection_mb_s=mb_s)
    parts = urlsplit(origin.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(raw_get(key="large"))
        assert connection.recv(1000)
    raw(origin, b"no http\r\n\r\n")
    while origin.requests[-1].ended_at is None:
        ask(origin, "HEAD", "/_devorigin/requests")
    assert origin.requests[-1].body_bytes < 64 << 20
    assert caplog.records == []


def test_it_stops_with_answers_under_way_and_starts_again(origin: DevOrigin) -> None:
    origin.faults = [Fault("stall", after_bytes=10, delay_ms=3_600_000)]
    parts = urlsplit(origin.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(raw_get())
        assert connection.recv(10)
        origin.stop()
        origin.stop()
    origin.faults = []
    origin.start()
    assert ask(origin)[2] == DATA


def test_a_port_that_is_taken_is_said_so(
    origin: DevOrigin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = urlsplit(origin.url).port or 0
    with pytest.raises(OSError, match="address already in use"):
        DevOrigin(tmp_path, port=port).start()
    assert run(tmp_path, "127.0.0.1", port, Shape()) == 1
    assert run(tmp_path / "absent", "127.0.0.1", 0, Shape()) == 1
    taken, absent = capsys.readouterr().err.splitlines()
    assert f"127.0.0.1:{port}" in taken
    assert "absent is not a folder" in absent


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_ready_and_ends_with_0_on_a_signal(tmp_path: Path, number: int) -> None:
    program = (
        "import sys; from pathlib import Path; from cachesvc.devorigin import Shape, run;"
        "sys.exit(run(Path(sys.argv[1]), '127.0.0.1', 0, Shape()))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
