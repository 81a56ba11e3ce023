"""An error arrives as what it was, with a code of its own, and fits a header."""

from __future__ import annotations

import pytest

from cachesvc.core import errors
from cachesvc.core.errors import CacheError, CorruptAnswer
from cachesvc.wire import codec
from cachesvc.wire.frame import MAX_HEADER_BYTES
from cachesvc.wire.v1 import cluster_pb2
from tests.fuzz.sample import NAME


def travelling() -> list[type[CacheError]]:
    """Every error class but the root, and the client's own."""
    found, todo = [], [CacheError]
    while todo:
        for kind in todo.pop().__subclasses__():
            found.append(kind)
            todo.append(kind)
    return [kind for kind in found if kind.__module__ == errors.__name__ and kind != CorruptAnswer]


def test_every_error_that_can_travel_has_a_wire_code_of_its_own() -> None:
    assert set(codec.ERRORS) == set(travelling())
    codes = [code for code, _ in codec.ERRORS.values()]
    assert sorted(codes) == sorted(set(cluster_pb2.ErrorCode.values()) - {0})


@pytest.mark.parametrize("kind", travelling(), ids=lambda kind: kind.__name__)
def test_an_error_arrives_as_what_it_was(kind: type[CacheError]) -> None:
    message = codec.error_message(kind("s3://bucket/kéy: because"))
    again = codec.parse(cluster_pb2.Error, message.SerializeToString())
    with pytest.raises(kind) as caught:
        codec.raise_error(again)
    assert type(caught.value) is kind
    assert str(caught.value) == "s3://bucket/kéy: because"
    with pytest.raises(kind):
        codec.unpack_read_head(NAME, codec.pack_error_head(kind("x")))
    status = codec.code_of(kind("x"))[1]
    import grpc

    assert status in grpc.StatusCode.__members__


def test_a_stranger_arrives_as_a_defect_and_keeps_its_text_at_home() -> None:
    message = codec.error_message(ZeroDivisionError("the secret"))
    assert "secret" not in message.message
    with pytest.raises(errors.InternalError, match="ZeroDivisionError"):
        codec.raise_error(message)


def test_an_error_code_of_a_later_version_is_an_internal_error() -> None:
    message = cluster_pb2.Error(message="new")
    message.code = 99  # type: ignore[assignment]
    with pytest.raises(errors.InternalError, match="new"):
        codec.raise_error(message)
    codec.raise_error(cluster_pb2.Error())


def test_a_long_error_is_cut_to_fit_a_header() -> None:
    message = codec.pack_error_head(errors.OriginError("é" * 100_000))
    assert len(message.SerializeToString()) < MAX_HEADER_BYTES
