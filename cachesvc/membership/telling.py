"""Telling the other members that objects were written.

Rules: best effort, within TELL_S, all members at once. A member that does not hear it goes on
believing in what it knows for its own `revalidate` at most, as without the message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from cachesvc.core.errors import CacheError, ProtocolError
from cachesvc.core.types import ObjectName
from cachesvc.membership.cluster import Cluster
from cachesvc.membership.greeting import greeting, receive
from cachesvc.wire import codec
from cachesvc.wire.frame import Kind, encode
from cachesvc.wire.v1 import cache_pb2

TELL_S = 1.0

log = structlog.get_logger(__name__)


async def tell_forget(
    cluster: Cluster, names: Sequence[ObjectName], lanes: Sequence[str] | None = None
) -> None:
    """Have the nodes behind these lanes, else every other member, forget the versions of these
    objects. Raises nothing.
    """
    if lanes is None:
        others = [one for one in cluster.table.members if one.node_id != cluster.me.node_id]
        lanes = [one.lane_address for one in others]
    await asyncio.gather(*(_tell(cluster, lane, names) for lane in lanes))


async def _tell(cluster: Cluster, address: str, names: Sequence[ObjectName]) -> None:
    try:
        async with (
            asyncio.timeout(TELL_S),
            greeting(cluster, address) as (welcome, reader, writer),
        ):
            codec.raise_error(welcome.error)
            for group in codec.forget_groups(names):
                writer.write(encode(Kind.FORGET, codec.pack_forget(group)))
                prefix, header = await receive(reader)
                if prefix.kind is not Kind.FORGET_ANSWER:
                    raise ProtocolError(f"{address} answers FORGET by {prefix.kind.name}")
                codec.raise_error(codec.parse(cache_pb2.ForgetAnswer, header).error)
    except (CacheError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        log.warning(
            "a member was not told of a write",
            address=address,
            objects=len(names),
            why=str(error) or type(error).__name__,
        )
