"""Errors on the TCP lane that leave the connection usable."""

from __future__ import annotations

from typing import Any

import pytest

from cachesvc.core.errors import InvalidKey, NotCacheable, ObjectNotFound, RangeError
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectName, ObjectVersion, Source
from cachesvc.wire.frame import Kind
from cachesvc.wire.v1 import cache_pb2
from tests.integration.inprocess import InProcessNode, RawClient
from tests.integration.lane.sample import DATA, END, RANGES, expected
from tests.support import NAME


def test_an_error_is_an_answer_and_the_connection_goes_on(node: InProcessNode) -> None:
    version = node.put(DATA)
    node.put(DATA, ObjectName("bucket", "weak"), 'W/"weak"')
    with RawClient(node).greeted() as client:
        for _ in range(2):
            client.ask(ReadRequest(ObjectName("bucket", "none"), ((0, 1),)))
            with pytest.raises(ObjectNotFound):
                client.answer()
            with pytest.raises(RangeError):
                client.read((END + 1, None))
            assert client.read((0, 5)) == DATA[:5]
        bad = cache_pb2.ReadRequest(object=cache_pb2.ObjectName(bucket="b", key="a\0b"))
        for message, kind in ((bad, InvalidKey), (cache_pb2.ReadRequest(), InvalidKey)):
            client.send(Kind.READ, message.SerializeToString())
            with pytest.raises(kind):
                client.answer()
            client.send(Kind.STAT, message.SerializeToString())
            assert client.frame()[0] is Kind.STAT_ANSWER
        no_range = cache_pb2.ReadRequest(object=cache_pb2.ObjectName(bucket="b", key="k"))
        client.send(Kind.READ, no_range.SerializeToString())
        with pytest.raises(RangeError):
            client.answer()
        weak = ObjectVersion(ObjectName("bucket", "weak"), 'W/"weak"', END)
        client.ask(ReadRequest(weak.name, ((0, 1),), weak))
        with pytest.raises(NotCacheable):
            client.answer()
        assert client.stat().version == version


def test_bytes_that_are_no_message_are_an_error_and_the_connection_goes_on(
    node: InProcessNode,
) -> None:
    node.put(DATA)
    with RawClient(node).greeted() as client:
        client.send(Kind.READ, b"\xff\xff\xff")
        with pytest.raises(OSError, match="ReadRequest"):
            client.answer()
        client.send(Kind.STAT, b"\xff\xff\xff")
        assert client.frame()[0] is Kind.STAT_ANSWER
        assert client.read((0, 5)) == DATA[:5]


def test_an_object_without_a_strong_etag_is_read_by_a_bypass(node: InProcessNode) -> None:
    node.put(DATA, etag='W/"weak"')
    with RawClient(node).greeted() as client:
        assert client.read() == b""
        assert client.stat().version is not None
        for wanted in RANGES:
            client.ask(ReadRequest(NAME, (wanted,), bypass=True))
            version, data, sources = client.answer()
            assert data == expected(*wanted)
            assert sources <= {Source.BYPASS}
            assert not version.cacheable
    assert node.store.stored_count == 0


def test_an_origin_that_breaks_in_the_middle_is_an_error_and_no_short_answer(
    node: InProcessNode,
) -> None:
    version = node.put(DATA)
    gone = node.blocks(version)[2].start

    async def before(op: str, name: ObjectName, wanted: Any) -> None:
        if op == "get" and wanted.start >= gone:
            raise ZeroDivisionError

    node.origin.before = before
    with RawClient(node).greeted() as client:
        with pytest.raises(OSError, match="block 2"):
            client.read()
        assert client.read((0, gone)) == DATA[:gone]
