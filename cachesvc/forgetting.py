"""Objects that were written: a node forgets what it believed of them, on every lane alike."""

from __future__ import annotations

from cachesvc.core.errors import CacheError
from cachesvc.versions import Versions
from cachesvc.wire import codec
from cachesvc.wire.frame import Kind, encode
from cachesvc.wire.v1 import cache_pb2


def forget(versions: Versions, message: cache_pb2.ForgetRequest) -> None:
    """On the event loop. Raises: InvalidKey, ProtocolError (too many at once)."""
    for name in codec.unpack_forget(message):
        versions.forget_object(name)


def forget_frame(versions: Versions, header: bytes) -> bytes:
    """The same for a frame of the lane: the frame that answers it, with the error if any."""
    answer = cache_pb2.ForgetAnswer()
    try:
        forget(versions, codec.parse(cache_pb2.ForgetRequest, header))
    except CacheError as error:
        answer.error.CopyFrom(codec.error_message(error))
    return encode(Kind.FORGET_ANSWER, answer.SerializeToString())
