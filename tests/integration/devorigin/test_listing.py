"""Listings of the development origin."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from cachesvc.devorigin import DevOrigin
from tests.integration.devorigin.asking import DATA, ask


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
