"""Which requests are plain reads of the cluster's origin, and which are S3's alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from cachesvc_client.intercept.request import Passed, Place, Span, buckets_of, wanted_of

AWS = Place("")
OWN = Place("http://10.0.0.1:9000")
SIGNED = {
    "Authorization": b"AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/s3/aws4_request, x"
}


def request(url: str = "http://10.0.0.1:9000/bucket/key", **given: Any) -> Any:
    fields = {"method": "GET", "url": url, "headers": SIGNED, "body": None} | given
    return SimpleNamespace(**fields)


@pytest.mark.parametrize(
    ("place", "url", "expected"),
    [
        (OWN, "http://10.0.0.1:9000/bucket/key", "s3://bucket/key"),
        (OWN, "http://bucket.10.0.0.1:9000/key/a", "s3://bucket/key/a"),
        (OWN, "http://10.0.0.1:9000/bucket//a//b/", "s3://bucket//a//b/"),
        (OWN, "http://10.0.0.1:9000/bucket/a%20%2B%252F%C3%A4", "s3://bucket/a +%2Fä"),
        (Place("http://h/s3"), "http://h/s3/bucket/key", "s3://bucket/key"),
        (AWS, "https://bucket.s3.amazonaws.com/key", "s3://bucket/key"),
        (AWS, "https://s3.amazonaws.com/bucket/key", "s3://bucket/key"),
        (AWS, "https://a.b.s3.eu-west-1.amazonaws.com/key", "s3://a.b/key"),
        (AWS, "https://s3-eu-west-1.amazonaws.com/bucket/key", "s3://bucket/key"),
        (AWS, "https://bucket.s3.dualstack.eu-west-1.amazonaws.com/key", "s3://bucket/key"),
    ],
)
def test_objects_of_the_origin_are_found_in_every_style(
    place: Place, url: str, expected: str
) -> None:
    assert str(place.locate(url)) == expected


@pytest.mark.parametrize(
    ("place", "url", "why"),
    [
        (OWN, "https://10.0.0.1:9000/bucket/key", "endpoint"),
        (OWN, "http://10.0.0.1:9001/bucket/key", "endpoint"),
        (OWN, "https://bucket.s3.amazonaws.com/key", "endpoint"),
        (AWS, "http://10.0.0.1:9000/bucket/key", "endpoint"),
        (AWS, "https://bucket.s3.cn-north-1.amazonaws.com.cn/key", "endpoint"),
        (AWS, "https://bucket.s3.us-gov-west-1.amazonaws.com/key", "endpoint"),
        (AWS, "https://ap-123.s3-accesspoint.us-east-1.amazonaws.com/key", "endpoint"),
        (AWS, "https://ap-123.s3-object-lambda.us-east-1.amazonaws.com/key", "endpoint"),
        (AWS, "https://b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com/k", "endpoint"),
        (AWS, "https://s3.amazonaws.com.evil.example/bucket/key", "endpoint"),
        (OWN, "http://10.0.0.1:9000/bucket/a/../b", "name"),
        (OWN, "http://10.0.0.1:9000/bucket/%FF", "name"),
        (OWN, "http://10.0.0.1:9000/bucket/", "name"),
        (OWN, "http://10.0.0.1:9000/b--x-s3/key", "bucket"),
    ],
)
def test_what_is_elsewhere_is_left_to_s3(place: Place, url: str, why: str) -> None:
    with pytest.raises(Passed, match=f"^{why}$"):
        place.locate(url)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"method": "PUT"}, "method"),
        ({"body": b"x"}, "method"),
        ({"url": "http://10.0.0.1:9000/bucket/key?versionId=1"}, "parameter"),
        ({"url": "http://10.0.0.1:9000/bucket/key?partNumber=1"}, "parameter"),
        ({"url": "http://10.0.0.1:9000/bucket/key?X-Amz-Signature=1"}, "parameter"),
        ({"headers": SIGNED | {"x-amz-server-side-encryption-customer-key": b"k"}}, "field"),
        ({"headers": SIGNED | {"X-Amz-Something-New": b"k"}}, "field"),
        ({"headers": SIGNED | {"If-None-Match": b"k"}}, "condition"),
        ({"headers": {"Authorization": b"AWS AKID:signature"}}, "signature"),
        ({"headers": {"Authorization": b"AWS4-ECDSA-P256-SHA256 Credential=A/"}}, "signature"),
        ({"headers": SIGNED | {"Range": b"bytes=1-2,4-5"}}, "range"),
        ({"headers": SIGNED | {"Range": b"bytes=5-1"}}, "range"),
        ({"headers": SIGNED | {"Range": b"bytes=0-1"}, "method": "HEAD"}, "range"),
    ],
)
def test_what_is_unusual_is_left_to_s3(given: dict[str, Any], why: str) -> None:
    with pytest.raises(Passed, match=f"^{why}$"):
        wanted_of(request(**given), OWN)


def test_a_plain_read_says_who_wants_what() -> None:
    headers = SIGNED | {
        "Range": b"bytes=5-9",
        "If-Match": b'"e"',
        "x-amz-checksum-mode": b"ENABLED",
    }
    wanted = wanted_of(request(headers=headers), OWN)
    assert (wanted.who, wanted.head, wanted.span) == ("AKID", False, Span(5, 10))
    assert (wanted.if_match, wanted.checksums) == ('"e"', True)
    assert wanted_of(request(headers={}), OWN).who == "", "nobody signed it"


@pytest.mark.parametrize(
    ("span", "size_bytes", "expected"),
    [
        (Span(0, None), 10, (0, 10)),
        (Span(3, 5), 10, (3, 5)),
        (Span(3, 50), 10, (3, 10)),
        (Span(None, 4), 10, (6, 10)),
        (Span(None, 40), 10, (0, 10)),
    ],
)
def test_ranges_are_cut_to_the_object(
    span: Span, size_bytes: int, expected: tuple[int, int]
) -> None:
    assert span.within(size_bytes) == expected


@pytest.mark.parametrize("span", [Span(10, None), Span(None, 0), Span(11, 20)])
def test_ranges_without_a_byte_are_left_to_s3(span: Span) -> None:
    with pytest.raises(Passed, match="range"):
        span.within(10)


def test_buckets_are_names_globs_and_prefixes() -> None:
    place = Place("", buckets_of("models, s3://data-*/train/ ,"))
    assert place.buckets == ("models", "data-*/train/")
    there = ["https://models.s3.amazonaws.com/x", "https://data-1.s3.amazonaws.com/train/x"]
    assert [place.locate(url).key for url in there] == ["x", "train/x"]
    for url in ("https://data-1.s3.amazonaws.com/test/x", "https://model.s3.amazonaws.com/x"):
        with pytest.raises(Passed, match="bucket"):
            place.locate(url)
