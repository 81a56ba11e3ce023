"""Request targets: decoded once, byte for byte, and encoded as SigV4 wants them."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.gateway.errors import S3Error
from cachesvc.gateway.sigv4 import canonical_query
from cachesvc.gateway.target import parse_target, wire_query

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200)


@given(KEYS, st.sampled_from(["", "/", "/+~*"]))
def test_a_key_comes_out_as_it_was_encoded(key: str, safe: str) -> None:
    target = parse_target("/bucket/" + quote(key, safe=safe), "host:80", "")
    assert (target.bucket, target.key) == ("bucket", key)
    assert parse_target(target.path, "", "") == parse_target(target.path, "x", "")
    assert parse_target(target.path, "", "").key == key


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("/b/a//b", "a//b"),
        ("/b/a/../b", "a/../b"),
        ("/b//", "/"),
        ("/b/a+b", "a+b"),
        ("/b/a%2Fb%252F/", "a/b%2F/"),
        ("/b/a?x=y", "a"),
        ("http://host/b/a/./b", "a/./b"),
        ("/b/gr\udcc3\udcbc", "grü"),
        ("/b", ""),
        ("/b/", ""),
    ],
)
def test_a_path_is_not_normalised(raw: str, key: str) -> None:
    target = parse_target(raw, "host", "")
    assert (target.bucket, target.key) == ("b", key)


@pytest.mark.parametrize(
    ("host", "bucket", "key"),
    [
        ("mine.s3.local", "mine", "a/b"),
        ("Mine.S3.Local:7072", "Mine", "a/b"),
        ("with.dots.s3.local", "with.dots", "a/b"),
        ("s3.local", "a", "b"),
        ("other.example", "a", "b"),
        ("[::1]:7072", "a", "b"),
    ],
)
def test_a_host_below_the_domain_names_the_bucket(host: str, bucket: str, key: str) -> None:
    target = parse_target("/a/b", host, "s3.local")
    assert (target.bucket, target.key, target.signed_path) == (bucket, key, "/a/b")


@pytest.mark.parametrize("raw", ["/b/%ff", "/b/a%00", "/b/a?x=%ff", "/%00/a", "/b/" + "k" * 1025])
def test_what_no_object_can_be_named_is_400(raw: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_target(raw, "", "")
    assert caught.value.status == 400


def test_a_query_keeps_its_order_on_the_wire_and_is_sorted_where_it_is_signed() -> None:
    target = parse_target("/b?uploads&prefix=a+b%2F&a=&a=1", "", "")
    assert wire_query(target.query) == "uploads&prefix=a%20b%2F&a=&a=1"
    assert canonical_query(target.query) == "a=&a=1&prefix=a%20b%2F&uploads="
    assert target.parameters == {"uploads": "", "prefix": "a b/", "a": ""}
