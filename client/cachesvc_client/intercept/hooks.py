"""Where interception meets botocore: every S3 client gets an interceptor, by documented events.

Story: botocore tells `creating-client-class.s3` before it makes a client; a base class put in there
attaches the interceptor to the client once it is made (`before-send`, `after-call`). New sessions
get that handler from botocore's list of built-in ones, as moto's do; sessions and clients that are
there already are looked up once, among all objects of the process that the collector knows: who was
frozen by `gc.freeze` before the first `take_over` is not found.

Rules: `give_back` takes all of it back, by a list of its own; classes that were made meanwhile
stay, and interceptors that were missed are told to pass. One client that is half made keeps nobody
from being hooked or given back.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary, finalize

from cachesvc_client.intercept import writes
from cachesvc_client.intercept.interceptor import USER_AGENT, Interception
from cachesvc_client.intercept.stats import STATS

_CLASSES = "creating-client-class.s3"
_EVENTS = {
    f"{event}.s3.{operation}": method
    for event, method, operations in (
        ("before-send", "before_send", ("GetObject", "HeadObject")),
        ("after-call", "after_call", ("GetObject", "HeadObject")),
        ("before-parameter-build", "remember", writes.OPERATIONS),
        ("after-call", "after_write", writes.OPERATIONS),
        ("after-call-error", "after_write", writes.OPERATIONS),
    )
    for operation in operations
}
_ID = "cachesvc-"  # and the event: an id counts for all events of an emitter
_current: Interception | None = None
# S3 clients by id: unlike a WeakSet it gives its references in one step, whoever else adds some.
_met: WeakValueDictionary[int, Any] = WeakValueDictionary()


def take_over(interception: Interception) -> None:
    """From now on S3 clients, also those there are, read through this interception."""
    global _current  # noqa: PLW0603 - botocore's built-in handlers are the process's
    from botocore.client import BaseClient
    from botocore.handlers import BUILTIN_HANDLERS
    from botocore.session import Session

    give_back()
    _current = interception
    finalize(interception, interception.cache.close)
    BUILTIN_HANDLERS.append((_CLASSES, _make_hooked))
    _for_each(_living(Session), _join)
    _for_each(_living(BaseClient), _meet)
    _for_each(_clients(), _stand_beside)


def give_back() -> None:
    """Everything is botocore's again; bodies that are being read go on."""
    global _current  # noqa: PLW0603
    if _current is None:
        return
    from botocore.handlers import BUILTIN_HANDLERS
    from botocore.session import Session

    _current.active = False
    _current = None
    BUILTIN_HANDLERS[:] = [one for one in BUILTIN_HANDLERS if one[1] is not _make_hooked]
    _for_each(_living(Session), _leave)
    _for_each(_clients(), _step_aside)


class Hooked:
    """A base of S3's client classes that attaches an interceptor to each client."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _for_each([self], _meet)
        if id(self) in _met:
            _for_each([self], _stand_beside)


def _make_hooked(base_classes: list[type], **_: Any) -> None:
    if Hooked not in base_classes:
        base_classes.insert(0, Hooked)


def _join(session: Any) -> None:
    session.register(_CLASSES, _make_hooked, unique_id=_ID + _CLASSES)


def _leave(session: Any) -> None:
    session.unregister(_CLASSES, _make_hooked)
    session.unregister(_CLASSES, _make_hooked, unique_id=_ID + _CLASSES)


def _meet(client: Any) -> None:
    """Note a client, if it is one of S3 and not of our own."""
    meta = client.meta
    if meta.service_model.service_name == "s3" and meta.config.user_agent_extra != USER_AGENT:
        _met[id(client)] = client


def _stand_beside(client: Any) -> None:
    """Attach an interceptor to a client."""
    interception = _current
    if interception is None:
        return
    kind = _kind_of(client)
    if kind is None:
        return
    interceptor = kind(client, interception)
    for event, method in _EVENTS.items():
        handler = getattr(interceptor, method)
        client.meta.events.register_last(event, handler, unique_id=_ID + event)


def _step_aside(client: Any) -> None:
    for event in _EVENTS:
        client.meta.events.unregister(event, unique_id=_ID + event)


def _for_each(found: Iterable[Any], work: Callable[[Any], None]) -> None:
    for one in found:
        try:
            work(one)
        except Exception as error:
            STATS.fault(error)


def _clients() -> Iterator[Any]:
    """The S3 clients that were met and are still there."""
    return (client for client in (ref() for ref in _met.valuerefs()) if client is not None)


def _kind_of(client: Any) -> Any:
    """The interceptor's class; None: there is none for this client."""
    if any(base.__module__.startswith("aiobotocore.") for base in type(client).__mro__):
        from cachesvc_client.intercept.aio import AioInterceptor, reads_by_aiohttp

        return AioInterceptor if reads_by_aiohttp(client) else None
    from cachesvc_client.intercept.sync import SyncInterceptor

    return SyncInterceptor


def _living(kind: type) -> Iterator[Any]:
    """The objects of a class. By their true type: asking a proxy for its class may do anything."""
    for one in gc.get_objects():
        if issubclass(type(one), kind):
            yield one
