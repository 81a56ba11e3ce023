"""The keys in the body of a DeleteObjects."""

from __future__ import annotations

import pytest

from cachesvc.gateway.deletion import keys_of
from cachesvc.gateway.errors import S3Error

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@pytest.mark.parametrize("attribute", ["", f" {NAMESPACE}"])
def test_keys_are_read_as_they_were_meant(attribute: str) -> None:
    body = (
        f"<Delete{attribute}><Object><Key>a &amp; b&#x9;</Key><VersionId>Key</VersionId></Object>"
        "<Object>\n<Key><![CDATA[<x>]]></Key></Object><Quiet>true</Quiet></Delete>"
    )
    assert keys_of(body.encode()) == ["a & b\t", "<x>"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no xml",
        "<Delete></Delete>",
        "<Delete><Object><Key>a</Object></Delete>",
        '<!DOCTYPE a [<!ENTITY b "c">]><Delete><Object><Key>&b;</Key></Object></Delete>',
        "<Delete>" + "<Object><Key>a</Key></Object>" * 1001 + "</Delete>",
    ],
)
def test_what_is_no_such_document_is_refused(body: str) -> None:
    with pytest.raises(S3Error) as caught:
        keys_of(body.encode())
    assert (caught.value.status, caught.value.code) == (400, "MalformedXML")
