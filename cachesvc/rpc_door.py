"""The door of the gRPC service: who is let in, and who is hung up on because he keeps a call open.

Rules
- The token is asked for before anything else of a call is waited for; a health check needs none.
- A call holds a thread from its first header on. So whoever opens one has REQUEST_S to send the
  request, and a stream that is open for more requests as long as the service says. To the other end
  a method is what it was: on the wire a stream of one request is that request.
- Health's Watch is not offered: every client that watches would hold a call for good. Clients take
  UNIMPLEMENTED for a server that is healthy as long as it can be reached (gRPC's A17).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
import structlog

from cachesvc.core.errors import CacheError, InternalError
from cachesvc.membership.cluster import Cluster
from cachesvc.wire import codec

REQUEST_S = 5.0  # as a lane's client has for its Hello
_CHECK = "/grpc.health.v1.Health/Check"
_WATCH = "/grpc.health.v1.Health/Watch"

log = structlog.get_logger(__name__)
Continuation = Callable[[grpc.HandlerCallDetails], Any]
Handler = Any  # grpc.RpcMethodHandler, whose stubs lack its fields


class Turn:
    """In one call: since when it is the client's turn. It is, from the beginning on.

    patience_s: how long it may last.
    """

    __slots__ = ("_since_s", "context", "patience_s")

    def __init__(self, context: grpc.ServicerContext, patience_s: float) -> None:
        self.context = context
        self.patience_s = patience_s
        self.theirs()

    def theirs(self) -> None:
        """The client's, from now on."""
        self._since_s = time.monotonic()

    def ours(self) -> None:
        """The node's: the client waits."""
        self._since_s = float("inf")

    @property
    def missed(self) -> bool:
        """Whether the client has let it pass."""
        return time.monotonic() - self._since_s > self.patience_s


class Turns:
    """The turns of all calls that may be hung up on. Any thread may use it."""

    def __init__(self) -> None:
        self._open: set[Turn] = set()

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def watched(self, turn: Turn) -> Iterator[Turn]:
        """The turns of one call, while it is under way."""
        self._open.add(turn)
        try:
            yield turn
        finally:
            self._open.discard(turn)

    def hang_up(self) -> None:
        """On whoever has let his turn pass."""
        for turn in tuple(self._open):
            if turn.missed:
                turn.context.cancel()  # type: ignore[no-untyped-call]


class TokenAsked(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in stubs only
    """Asks every call for the token, before it gets to its method; a health check is let in, and
    told that it cannot watch.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """See grpc.ServerInterceptor."""
        if handler_call_details.method == _WATCH:
            return None
        if handler_call_details.method == _CHECK:
            return continuation(handler_call_details)
        given = dict(handler_call_details.invocation_metadata).get("authorization", "")
        token = given.removeprefix("Bearer ") if isinstance(given, str) else ""
        try:
            self._cluster.check_token(token, "a gRPC client")
        except CacheError as error:
            refusal = error

            def refuse(_requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
                abort(context, refusal)

            return grpc.stream_unary_rpc_method_handler(refuse)
        return continuation(handler_call_details)


class RequestAwaited(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in stubs only
    """Waits for the request of a call for `request_s` and no longer, and for the next one, in a
    stream of requests, for `patience_s`. Who lets that pass is told CANCELLED; who ends his call
    without a request, INVALID_ARGUMENT.
    """

    def __init__(self, turns: Turns, patience_s: float, request_s: float) -> None:
        self._turns = turns
        self._patience_s = patience_s
        self._request_s = request_s

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """See grpc.ServerInterceptor."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        if handler.request_streaming:
            make, answer = grpc.stream_stream_rpc_method_handler, self._each(handler.stream_stream)
        elif handler.response_streaming:
            make, answer = grpc.stream_stream_rpc_method_handler, self._one(handler.unary_stream)
        else:
            make, answer = grpc.stream_unary_rpc_method_handler, self._one(handler.unary_unary)
        return make(answer, handler.request_deserializer, handler.response_serializer)

    def _one(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._turns.watched(Turn(context, self._request_s)):
                request = next(requests, None)
            if request is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a call without a request")
            return method(request, context)

        return answer

    def _each(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            with self._turns.watched(Turn(context, self._patience_s)) as turn:

                def heard() -> Iterator[Any]:
                    for request in requests:
                        turn.theirs()
                        yield request

                yield from method(heard(), context)

        return answer


def abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End the call with the error's status; a stranger is a defect, and logged."""
    if not isinstance(error, CacheError):
        log.exception("a call broke")
        error = InternalError(f"a defect ({type(error).__name__}); the node's log has more")
    code, status = codec.code_of(error)
    context.set_trailing_metadata((("cachesvc-error-code", str(int(code))),))
    context.abort(grpc.StatusCode[status], str(error))
    raise AssertionError("abort raises")
