"""A lane that is drained."""

from __future__ import annotations

from threading import Thread

from cachesvc.core.request import ReadRequest
from tests.integration.inprocess import InProcessNode, RawClient
from tests.integration.lane.sample import DATA
from tests.support import NAME, until


def test_draining_answers_what_is_under_way_and_hangs_up(node: InProcessNode) -> None:
    version = node.put(DATA)
    with RawClient(node).greeted() as busy, RawClient(node).greeted() as idle:
        with node.origin.holding(node.runner) as let_go:
            busy.ask(ReadRequest(NAME, ((0, None),), version))
            until(lambda: bool(node.lane._tasks), "the read has begun")
            drained = Thread(target=lambda: node.runner.run(node.lane.drain))
            drained.start()
            idle.hung_up()
            let_go()
            assert busy.answer()[1] == DATA
            busy.hung_up()
        drained.join()
    assert node.lane.connection_count == 0
