"""Keys of the development origin: any key goes in and comes out as it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from cachesvc.devorigin import DevOrigin
from cachesvc.devorigin.keys import odd_key, odd_parts, plain_parts
from tests.integration.devorigin.asking import NASTY_KEYS, ask


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
