"""One list of requests, sent to an origin and to the gateway before it: the same answers, but for
the differences that docs/s3-compatibility.md explains.

Story: two origins, ours and somebody else's (moto); every request twice, on a cold and on a warm
cache. Statuses, the header fields that say something of the object, and bodies are compared; of an
error document, the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cachesvc.devorigin import DevOrigin
from cachesvc.gateway import connection
from tests.integration.gateway.gate import Gate, Reply, ask, gateway_over
from tests.integration.gateway.raw import Raw, watched, wire
from tests.integration.gateway.requests import METADATA, OBJECTS, Asking, askings
from tests.moto_server import running_moto
from tests.support import until

BUCKET = "bucket"
# Of one answer and not of the object.
PASSING = frozenset(
    [
        "date",
        "server",
        "connection",
        "keep-alive",
        "transfer-encoding",
        "x-amz-request-id",
        "x-amz-id-2",
        "x-amzn-requestid",
        "x-cache",
        "x-cache-node",
        "access-control-allow-origin",
    ]
)


@dataclass(frozen=True)
class Difference:
    """One row of the table in docs/s3-compatibility.md: of which origin's answers, and what may
    differ; `status` is the statuses of origin and gateway.
    """

    name: str
    origin: str
    of: Callable[[Asking], bool]
    what: frozenset[str]


def _asks_range(*spans: str) -> Callable[[Asking], bool]:
    return lambda asking: asking.headers.get("Range", "").removeprefix("bytes=") in spans


def _has(*names: str, values: tuple[str, ...] = ()) -> Callable[[Asking], bool]:
    """Whether a request has such a header field, with one of the values, if any are given."""

    def has(asking: Asking) -> bool:
        given = [asking.headers[name] for name in names if name in asking.headers]
        return any(not values or value in values for value in given)

    return has


EXPLAINED = (
    Difference(
        "any-version", "moto",
        _has("If-Match", "If-None-Match", values=("*",)),
        frozenset({"status 412 200", "status 200 304"}),
    ),
    Difference(
        "fields-of-304", "moto",
        lambda asking: not asking.headers.keys().isdisjoint({"If-None-Match", "If-Modified-Since"}),
        frozenset(
            {
                *("accept-ranges", "last-modified", "cache-control", "content-disposition"),
                *("x-amz-content-sha256", "x-amz-meta-color", "x-amz-meta-path"),
                "x-amz-sdk-checksum-algorithm",
            }
        ),
    ),
    Difference(
        "suffix-of-nothing", "moto",
        lambda asking: (
            asking.key == "empty" and _asks_range("-3", "-99999999", f"-{10**30}")(asking)
        ),
        frozenset({"status 200 416"}),
    ),
    Difference("reversed-range", "moto", _asks_range("9-5"), frozenset({"status 416 200"})),
    Difference(
        "long-key", "moto",
        lambda asking: asking.target.endswith("k" * 1025),
        frozenset({"status 404 400"}),
    ),
    Difference(
        "if-range", "moto", _has("If-Range"), frozenset({"status 206 200", "status 416 200"})
    ),
    Difference(
        "odd-ranges", "moto",
        _has("Range", values=("items=0-1", "bytes= 0-1", "bytes=0 -1", "bytes=+0-1")),
        frozenset({"status 206 200", "status 416 200"}),
    ),
    Difference(
        "etag-first", "moto",
        lambda asking: len(asking.headers) == 2 and _has("If-Match", "If-None-Match")(asking),
        frozenset({"status 412 200", "status 304 200"}),
    ),
    Difference(
        "lists-of-etags", "moto",
        _has("If-Match", "If-None-Match", values=("W/ETAG", '"0123", ETAG', '"0123",W/ETAG')),
        frozenset({"status 412 200", "status 200 304"}),
    ),
    Difference(
        "other-dates", "moto", _has("If-Modified-Since", "If-Unmodified-Since"),
        frozenset({"status 500 200", "status 500 412"}),
    ),
    Difference(
        "checksum-of-range", "moto",
        lambda asking: "x-amz-checksum-mode" in asking.headers and "Range" in asking.headers,
        frozenset({"x-amz-checksum-crc32"}),
    ),
)  # fmt: skip


@pytest.fixture(params=["devorigin", "moto"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    if request.param == "devorigin":
        (tmp_path / "origin").mkdir()
        with DevOrigin(tmp_path / "origin") as started:
            yield "devorigin", started.url
        return
    with running_moto() as url:
        assert ask(url, "/moto-api/reset", "POST")[0] == 200
        yield "moto", url


def test_the_gateway_answers_as_its_origin_does(endpoint: tuple[str, str], tmp_path: Path) -> None:
    which, url = endpoint
    heads = _put_objects(url, with_metadata=which == "moto")
    (tmp_path / "node").mkdir()
    found: dict[str, set[str]] = {}
    used: set[str] = set()
    count = 0
    with gateway_over(url, tmp_path / "node") as gate:
        for _ in ("cold", "warm"):
            for asking in askings(BUCKET):
                count += 1
                origin, gateway = _both(url, gate, asking, heads)
                differing = _differing(origin, gateway)
                for one in EXPLAINED:
                    if which == one.origin and one.of(asking):
                        used |= {one.name} if differing & one.what else set()
                        differing -= one.what
                if differing:
                    found[str(asking)] = differing
    assert count > 400
    assert found == {}
    table = (Path(__file__).parents[3] / "docs" / "s3-compatibility.md").read_text()
    assert [one.name for one in EXPLAINED if f"`{one.name}`" not in table] == []
    assert used == {one.name for one in EXPLAINED if which == one.origin}


def test_hits_are_answered_to_the_byte_as_on_the_common_way(
    endpoint: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Date and request id aside."""
    which, url = endpoint
    heads = _put_objects(url, with_metadata=which == "moto")
    (tmp_path / "node").mkdir()
    found, hit_count = {}, 0
    with gateway_over(url, tmp_path / "node") as gate, Raw(gate) as raw:
        for key in OBJECTS:
            gate.ask(f"/{BUCKET}/{quote(key)}", headers={"x-amz-checksum-mode": "ENABLED"})
        until(gate.quiet, "all is stored")
        with watched(monkeypatch) as taken:
            for asking in (one for one in askings(BUCKET) if one.key):
                given = wire(asking.target, asking.method, **_filled(asking, heads))
                raw.send(given)
                short = raw.answer(asking.method)
                with monkeypatch.context() as mask:
                    mask.setattr(connection, "plain", lambda data: None)
                    raw.send(given)
                    common = raw.answer(asking.method)
                hit, taken[:] = bool(taken), []
                hit_count += hit
                if hit and short.comparable() != common.comparable():
                    found[str(asking)] = short.head, common.head
    assert found == {}
    assert hit_count > 150


def _put_objects(url: str, *, with_metadata: bool) -> dict[str, dict[str, str]]:
    s3: Any = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    s3.create_bucket(Bucket=BUCKET)
    heads = {}
    for key, data in OBJECTS.items():
        further = {}
        if with_metadata:
            further = {
                "Metadata": METADATA.get(key, {}),
                "ContentType": "text/x-test",
                "CacheControl": "max-age=5",
                "ContentDisposition": 'attachment; filename="a b"',
            }
        s3.put_object(Bucket=BUCKET, Key=key, Body=data, **further)
        answer = s3.head_object(Bucket=BUCKET, Key=key)
        heads[key] = answer["ResponseMetadata"]["HTTPHeaders"]
    s3.close()
    return heads


def _both(
    url: str, gate: Gate, asking: Asking, heads: dict[str, dict[str, str]]
) -> tuple[Reply, Reply]:
    headers = _filled(asking, heads)
    request = AWSRequest(asking.method, url + asking.target, dict(headers))
    S3SigV4Auth(Credentials("key", "secret"), "s3", "us-east-1").add_auth(request)
    signed = dict(request.headers.items())
    return (
        ask(url, asking.target, asking.method, signed),
        gate.ask(asking.target, asking.method, headers),
    )


def _filled(asking: Asking, heads: dict[str, dict[str, str]]) -> dict[str, str]:
    """Its headers."""
    head = heads.get(asking.key, {"etag": "", "last-modified": ""})
    return {
        name: value.replace("ETAG", head["etag"]).replace("MODIFIED", head["last-modified"])
        for name, value in asking.headers.items()
    }


def _differing(origin: Reply, gateway: Reply) -> set[str]:
    """What differs: `status`, `body`, `code` of an error, names of header fields."""
    if origin[0] != gateway[0]:
        return {f"status {origin[0]} {gateway[0]}"}
    if origin[0] >= 400:
        return set() if _code(origin[2]) == _code(gateway[2]) else {"code"}
    names = (origin[1].keys() | gateway[1].keys()) - PASSING
    differing = {name for name in names if origin[1].get(name) != gateway[1].get(name)}
    return differing | ({"body"} if origin[2] != gateway[2] else set())


def _code(body: bytes) -> str:
    match = re.search(rb"<Code>(.*?)</Code>", body)
    return match[1].decode() if match else ""
