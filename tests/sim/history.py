"""One history: a small cluster, its clients and its troubles, from one seed to a verdict.

Rules: a call that does not end within CALL_LIMIT_S of virtual time has hung. In the end all faults
are healed; then every client must read every object right, and nothing may be left behind: no
flight, no buffer, no pin, no task.

Story: `run(seed)` draws a setup, plays the history on a virtual loop, and returns an Outcome. The
same seed gives the same trace, in whatever process.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import structlog

import cachesvc.way
from cachesvc.core.errors import ObjectNotFound
from cachesvc.core.types import ObjectName, ObjectVersion
from tests.sim.client import SimClient
from tests.sim.faults import Faults
from tests.sim.loop import Hang, VirtualLoop
from tests.sim.model import Call, Range
from tests.sim.setup import draw
from tests.sim.world import World

CALL_LIMIT_S = 120.0
QUIET_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a history. `counts`: how often what happened; `lines`: its trace, if wanted."""

    seed: int
    violations: list[str]
    counts: Counter[str]
    digest: str = ""
    lines: tuple[str, ...] = ()


def run(seed: int, *, trace: bool = False) -> Outcome:
    """Play the history of a seed."""
    rng = Random(seed)
    setup = draw(rng)
    loop = VirtualLoop()
    with _quiet() as defects, _small_bytes(setup.small_bytes):
        world = World(rng, setup, loop)
        loop.set_exception_handler(lambda _, context: world.violate(_unhandled(context)))
        try:
            loop.run_until_complete(_play(world))
        except Hang as hang:
            world.violate(str(hang))
        finally:
            loop.close()
        for defect in defects:
            world.violate(f"a defect was logged: {defect}")
    return Outcome(
        seed,
        world.violations,
        world.counts,
        world.digest() if trace else "",
        (str(setup), *world.lines()) if trace else (),
    )


async def _play(world: World) -> None:
    faults = Faults(world)
    faults.hook_all()
    director = asyncio.create_task(faults.direct())
    workers = [
        asyncio.create_task(_work(world, client))
        for client in world.clients
        for _ in range(world.setup.worker_count)
    ]
    await asyncio.gather(*workers)
    director.cancel()
    faults.heal()
    await _afterwards(world)


async def _work(world: World, client: SimClient) -> None:
    """One thread of an application."""
    seen: dict[ObjectName, ObjectVersion] = {}
    for _ in range(world.setup.call_count):
        await asyncio.sleep(world.setup.think_s * world.rng.random())
        await _limited(world, _call(world, client, seen), world.setup.cancel_share)
        world.check()


async def _limited(world: World, work: Any, cancel_share: float) -> None:
    """Let a call run to its end, or cancel it on its way; it must end."""
    task = asyncio.ensure_future(work)
    if world.rng.random() < cancel_share:
        world.loop.call_later(
            world.rng.choice((0.0, 0.005, 0.05)) * world.rng.random(), task.cancel
        )
    await asyncio.wait([task], timeout=CALL_LIMIT_S)
    if not task.done():
        world.violate("a call never ends")
        task.cancel()
    elif task.cancelled():
        world.count("cancelled")
    else:
        task.result()


# -- calls


async def _call(world: World, client: SimClient, seen: dict[ObjectName, ObjectVersion]) -> None:
    rng = world.rng
    name = rng.choice(world.names)
    if rng.random() < 0.15:
        max_age_s = rng.choice((None, 0.0, 0.05))
        await _stat(world, client, name, max_age_s, seen)
        return
    size_bytes = seen[name].size_bytes if name in seen else len(world.model.current(name).data)
    ranges = _ranges(world, size_bytes)
    pinned = seen.get(name) if rng.random() < 0.2 else None
    version = await _read(world, client, name, ranges, pinned)
    if version is not None:
        seen[name] = version


def _ranges(world: World, size_bytes: int) -> list[Range]:
    rng = world.rng

    def some() -> Range:
        start = rng.randint(0, size_bytes)
        return start, rng.choice((rng.randint(start, size_bytes), start + rng.randrange(300)))

    kind = rng.random()
    if kind < 0.25:
        return [(0, None)]
    if kind < 0.55:
        return [some()]
    if kind < 0.75:
        return [some() for _ in range(rng.randint(2, 6))]
    if kind < 0.87:
        return [(max(0, size_bytes - rng.randrange(200)), None)]
    if kind < 0.93:
        return [rng.choice(((size_bytes, size_bytes), (0, 0), (size_bytes, None)))]
    if kind < 0.97:
        return [some(), (size_bytes + rng.randint(1, 99), rng.choice((None, size_bytes + 200)))]
    return [rng.choice(((-5, 10), (20, 10), (-1, None)))]


async def _read(
    world: World,
    client: SimClient,
    name: ObjectName,
    ranges: list[Range],
    pinned: ObjectVersion | None = None,
) -> ObjectVersion | None:
    """Read and judge; the version that was read."""
    call = Call(name, ranges, pinned, world.loop.time())
    world.trace("read", client.name, call)
    try:
        version, results = await client.read(name, ranges, pinned)
    except Exception as error:
        _judge_error(world, client, call, error)
        return None
    call.until = world.loop.time()
    world.trace("has read", client.name, name, version.etag)
    world.count("read")
    problem = world.model.wrong_version(call, version)
    problem = problem or world.model.wrong_bytes(call, version, results)
    if problem:
        world.violate(f"{client.name} reads {call}: {problem}")
    return version


async def _stat(
    world: World,
    client: SimClient,
    name: ObjectName,
    max_age_s: float | None,
    seen: dict[ObjectName, ObjectVersion],
) -> None:
    age_s = float("inf") if max_age_s is None else max_age_s
    call = Call(name, [], None, world.loop.time(), max_age_s=age_s)
    world.trace("stat", client.name, call)
    try:
        version = await client.stat(name, max_age_s)
    except Exception as error:
        _judge_error(world, client, call, error)
        return
    call.until = world.loop.time()
    world.count("stat")
    seen[name] = version
    problem = world.model.wrong_version(call, version)
    if problem:
        world.violate(f"{client.name} stats {call}: {problem}")


def _judge_error(world: World, client: SimClient, call: Call, error: Exception) -> None:
    call.until = world.loop.time()
    world.trace("fails", client.name, call.name, type(error).__name__)
    world.count(f"failed with {type(error).__name__}")
    problem = world.model.wrong_error(call, error)
    if problem:
        world.violate(f"{client.name} on {call}: {problem}")


# -- the end


async def _afterwards(world: World) -> None:
    """All is well again: everything can be read, and nothing is left behind."""
    for clients in (world.clients, world.clients[:1]):
        for client in clients:
            for name in world.names:
                await _limited(world, _must_read(world, client, name), 0.0)
        world.check()
        if clients is world.clients:
            await asyncio.sleep(world.rng.choice((0.5, 40.0)))
    await _quiet_down(world)
    world.check()
    world.check_disks()
    for node in world.nodes.values():
        node.check_idle()


async def _must_read(world: World, client: SimClient, name: ObjectName) -> None:
    call = Call(name, [(0, None)], None, world.loop.time())
    if await _read(world, client, name, [(0, None)]) is None:
        call.until = world.loop.time()
        if world.model.wrong_error(call, ObjectNotFound("")):
            world.violate(f"{client.name} cannot read {name} after all was healed")


async def _quiet_down(world: World) -> None:
    """Until nothing is under way any more."""
    for _ in range(QUIET_LIMIT_S):
        await asyncio.sleep(1.0)
        if len(asyncio.all_tasks()) == 1:
            return
    world.violate(f"{len(asyncio.all_tasks()) - 1} tasks are left")


# -- what surrounds a history


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """No log, no garbage collector, which would come at another moment in every process; what is
    logged as an exception is a defect.
    """
    defects: list[str] = []

    def listen(_logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        if event.get("exc_info"):
            defects.append(f"{event['event']}: {event['exc_info']!r}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[listen], wrapper_class=structlog.make_filtering_bound_logger(40)
    )
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield defects
    finally:
        structlog.configure(**before)
        if was_enabled:
            gc.enable()


@contextmanager
def _small_bytes(small_bytes: int) -> Iterator[None]:
    """Blocks here are smaller than what the reader takes for small: let both kinds occur."""
    before = cachesvc.way.CHECKED_BYTES
    cachesvc.way.CHECKED_BYTES = small_bytes
    try:
        yield
    finally:
        cachesvc.way.CHECKED_BYTES = before


def _unhandled(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"unhandled: {context.get('message')} {error!r}"
