"""What breaks one piece of a read reaches its caller as it was, whatever the other pieces do.

Story: a helper that met a defect (MemoryError) gave the read up, and the caller's own next request
then raised the internal `GivenUp`, before the defect was raised; another helper's `GivenUp`
took the defect's place.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from cachesvc_client.drive import Crew, _Job
from cachesvc_client.effects import Effect, Refresh, Steps


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once a read was given up."""
    event, leave = threading.Event(), _Job.leave

    def watched(job: _Job) -> None:
        leave(job)
        event.set()

    monkeypatch.setattr(_Job, "leave", watched)
    return event


@pytest.mark.parametrize("caller_has_work_left", [True, False])
def test_a_defect_of_one_helper_is_what_the_caller_sees(
    given_up: threading.Event, caller_has_work_left: bool
) -> None:
    main = threading.current_thread()
    all_began, first = threading.Barrier(3), threading.Lock()

    def perform(_effect: Effect) -> Any:
        breaks = threading.current_thread() is not main and first.acquire(blocking=False)
        all_began.wait()
        if breaks:
            raise MemoryError("the defect")
        given_up.wait()

    def steps() -> Steps[None]:
        yield Refresh()
        if caller_has_work_left or threading.current_thread() is not main:
            yield Refresh()

    crew = Crew(2)
    try:
        with pytest.raises(MemoryError, match="the defect"):
            crew.together([steps(), steps(), steps()], perform)
    finally:
        crew.close()
