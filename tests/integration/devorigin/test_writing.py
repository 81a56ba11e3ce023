"""Writing to the development origin: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.devorigin.asking import DATA, ETAG, ask


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
