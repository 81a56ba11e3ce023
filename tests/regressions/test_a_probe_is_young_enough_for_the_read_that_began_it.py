"""A node that always asks asked twice of an object that it did not know: the probe had left a
moment before the clock was read for the age that its own reader allows.
"""

from __future__ import annotations

from itertools import count

from tests.support import NAME, open_rig, run
from tests.unit.reader.probes import HEAD, PROBE, SMALL


def test_a_cold_read_of_a_node_that_always_asks_is_one_get() -> None:
    async def body() -> None:
        async with open_rig(revalidate_s=0.0) as rig:
            rig.versions.clock = count(1.0, 0.001).__next__
            rig.origin.put(NAME, SMALL)
            assert await rig.read() == SMALL
            assert rig.origin.log == [PROBE]
            assert await rig.read() == SMALL
            assert rig.origin.log == [PROBE, HEAD]

    run(body)
