"""SigV4 at the gateway, signed by botocore: who is let in, and who is told what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from cachesvc.devorigin import DevOrigin
from cachesvc.gateway.assembly import GatewaySettings
from tests.integration.devorigin.asking import NASTY_KEYS
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate, gateway_over

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.fixture
def guarded(origin: DevOrigin, tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "node").mkdir()
    settings = GatewaySettings(domain="s3.localhost", keys={KEY: SECRET})
    with gateway_over(origin.url, tmp_path / "node", settings=settings) as started:
        yield started


def client(gate: Gate, key: str = KEY, secret: str = SECRET, **config: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=gate.url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="eu-central-1",
        config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}, **config),
    )


def signed(
    gate: Gate, target: str, *, headers: dict[str, str] | None = None, secret: str = SECRET
) -> dict[str, str]:
    """The headers of a request signed by botocore."""
    request = AWSRequest("GET", gate.url + target, headers or {})
    S3SigV4Auth(Credentials(KEY, secret), "s3", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def refused(gate: Gate, target: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    status, _, body = gate.ask(target, headers=headers)
    return status, body.decode().partition("<Code>")[2].partition("</Code>")[0]


@pytest.mark.parametrize("key", NASTY_KEYS)
def test_every_key_can_be_signed_for(guarded: Gate, origin: DevOrigin, key: str) -> None:
    origin.put("bucket", key, key.encode())
    target = "/bucket/" + quote(key, safe="/-_.~")
    status, _, body = guarded.ask(target, headers=signed(guarded, target))
    assert (status, body) == (200, key.encode())


def test_a_client_with_a_key_reads_writes_and_lists(guarded: Gate) -> None:
    s3 = client(guarded)
    assert s3.get_object(Bucket="bucket", Key="key")["Body"].read() == DATA
    s3.put_object(Bucket="bucket", Key="a b+c", Body=b"new", Metadata={"with": "spaces  inside"})
    assert s3.get_object(Bucket="bucket", Key="a b+c")["Body"].read() == b"new"
    listed = s3.list_objects_v2(Bucket="bucket", Prefix="a b", Delimiter="/")
    assert [one["Key"] for one in listed["Contents"]] == ["a b+c"]


def test_a_presigned_url_is_good_for_what_it_was_signed_for(guarded: Gate) -> None:
    s3 = client(guarded)
    wanted = {"Bucket": "bucket", "Key": "key"}
    target = s3.generate_presigned_url("get_object", wanted, 60).removeprefix(guarded.url)
    assert guarded.ask(target)[2] == DATA
    assert guarded.ask(target, headers={"Range": "bytes=0-9"})[2] == DATA[:10]
    assert refused(guarded, target.replace("/key?", "/other?")) == (403, "SignatureDoesNotMatch")
    assert refused(guarded, target + "&x=y") == (403, "SignatureDoesNotMatch")
    assert guarded.ask(target, "DELETE")[0] == 403
    put = s3.generate_presigned_url("put_object", wanted, 60).removeprefix(guarded.url)
    assert guarded.ask(put, "PUT", body=b"new")[0] == 200
    assert guarded.ask(target)[2] == b"new"


def test_a_presigned_url_expires(guarded: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"Bucket": "bucket", "Key": "key"}
    target = client(guarded).generate_presigned_url("get_object", wanted, 60)
    target = target.removeprefix(guarded.url)
    guard = guarded.gateway._guard
    assert guard is not None
    later = datetime.now(UTC) + timedelta(seconds=62)
    monkeypatch.setattr(guard, "_clock", later.timestamp)
    assert refused(guarded, target) == (403, "AccessDenied")
    assert refused(guarded, target.replace("Expires=60", "Expires=700000"))[0] == 400


def test_the_virtual_host_style_is_signed_for_its_own_path(guarded: Gate) -> None:
    port = urlsplit(guarded.url).port
    host = f"bucket.s3.localhost:{port}"
    request = AWSRequest("GET", f"http://{host}/key")
    S3SigV4Auth(Credentials(KEY, SECRET), "s3", "us-east-1").add_auth(request)
    headers = dict(request.headers.items()) | {"Host": host}
    assert guarded.ask("/key", headers=headers)[2] == DATA


def test_who_does_not_sign_or_signs_wrongly_is_refused(
    guarded: Gate, origin: DevOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(origin.requests)
    good = signed(guarded, "/bucket/key")
    unsigned = {"x-amz-request-payer": "requester"}
    for code, headers in {
        "AccessDenied": {},
        "SignatureDoesNotMatch": signed(guarded, "/bucket/key", secret="another"),
        "InvalidAccessKeyId": good | {"Authorization": good["Authorization"].replace(KEY, "WHO")},
        "AuthorizationHeaderMalformed": good | {"Authorization": "Basic abc"},
        "RequestTimeTooSkewed": good,
    }.items():
        if code == "RequestTimeTooSkewed":
            past = datetime.now(UTC) - timedelta(seconds=1000)
            monkeypatch.setattr(guarded.gateway._guard, "_clock", past.timestamp)
        status, told = refused(guarded, "/bucket/key", headers)
        assert (status in (400, 403), told) == (True, code)
    monkeypatch.undo()
    assert refused(guarded, "/bucket/key", good | unsigned) == (403, "AccessDenied")
    assert refused(guarded, "/bucket/other", good) == (403, "SignatureDoesNotMatch")
    assert len(origin.requests) == before
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        client(guarded, key="unknown").get_object(Bucket="bucket", Key="key")


def test_what_is_not_understood_is_501_for_strangers_too(guarded: Gate) -> None:
    """A form of a browser carries its signature in its body."""
    status, _, body = guarded.ask("/bucket", "POST", body=b"--x--")
    assert (status, b"PostObject" in body) == (501, True)


def test_a_url_presigned_by_version_2_is_told_so(guarded: Gate) -> None:
    s3 = boto3.client(  # which presigns so unless it is told otherwise
        "s3",
        endpoint_url=guarded.url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    assert "AWSAccessKeyId" in url
    status, _, body = guarded.ask(url.removeprefix(guarded.url))
    assert (status, b"version 4" in body) == (403, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Amz-Expires", "9" * 5000), ("X-Amz-Expires", ""), ("X-Amz-Signature", "%C3%A9")],
)
def test_what_no_signature_can_be_is_400(guarded: Gate, name: str, value: str) -> None:
    s3 = client(guarded)
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    target, count = re.subn(f"{name}=[^&]*", f"{name}={value}", url.removeprefix(guarded.url))
    assert count == 1
    assert refused(guarded, target) == (400, "AuthorizationQueryParametersError")


@pytest.mark.parametrize(
    "credential", [f"{KEY}/20260101/é/s3/aws4_request", f"{KEY}/٢٠٢٦٠١٠١/r/s3/aws4_request"]
)
def test_a_scope_that_no_signer_makes_is_refused(guarded: Gate, credential: str) -> None:
    s3 = client(guarded)
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    value = quote(credential, safe="")
    target, count = re.subn(
        "X-Amz-Credential=[^&]*", f"X-Amz-Credential={value}", url.removeprefix(guarded.url)
    )
    assert count == 1
    assert refused(guarded, target) == (400, "AuthorizationHeaderMalformed")
