"""`sources()` counts every byte, whichever threads read it.

Story: the count was read before the bytes of the reply were summed up, and written after: what
another thread had counted meanwhile was lost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import pytest
from cachesvc_client.config import configured
from cachesvc_client.effects import AskOrigin, Reply, Steps
from cachesvc_client.engine import Engine

from cachesvc.core.types import Source
from tests.support import NAME, version_of

VERSION = version_of(b"12345")


class WhileSummed(Mapping[Source, int]):
    """Five bytes, during whose counting another thread counts five of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getitem__(self, key: Source) -> int:
        other = threading.Thread(target=self._engine.run, args=(steps(),))
        other.start()
        other.join()
        return 5

    def __iter__(self) -> Iterator[Source]:
        yield Source.ORIGIN

    def __len__(self) -> int:
        return 1


def steps() -> Steps[None]:
    yield AskOrigin(NAME, None)


def test_bytes_that_two_threads_count_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(configured("127.0.0.1:1"))
    replies = iter(
        [Reply(VERSION, sources=WhileSummed(engine)), Reply(VERSION, sources={Source.ORIGIN: 5})]
    )
    monkeypatch.setattr(engine._origin, "ask", lambda _wanted: next(replies))
    engine.run(steps())
    assert engine.sources == {"direct": 10}
    engine.close()
