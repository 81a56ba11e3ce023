"""The retry budget: what it allows over time, with the clock in the test's hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.origin.budget import RetryBudget, backoff_ms


def test_a_full_bucket_allows_its_size_and_no_more() -> None:
    budget = RetryBudget(share=0.1, per_second=0.0, most=5.0)
    assert [budget.take(0.0) for _ in range(7)] == [True] * 5 + [False] * 2


def test_ten_requests_earn_one_retry() -> None:
    budget = RetryBudget(share=0.1, per_second=0.0, most=1.0)
    assert budget.take(0.0)
    for _ in range(9):
        budget.request(0.0)
    assert not budget.take(0.0)
    for _ in range(2):
        budget.request(0.0)
    assert budget.take(0.0)


def test_time_earns_a_trickle() -> None:
    budget = RetryBudget(share=0.0, per_second=2.0, most=1.0)
    assert budget.take(0.0)
    assert not budget.take(499.0)
    assert budget.take(500.0)


def test_rest_earns_no_more_than_the_bucket_holds() -> None:
    budget = RetryBudget(share=0.1, per_second=10.0, most=3.0)
    assert [budget.take(3_600_000.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_steps_back_earns_nothing() -> None:
    budget = RetryBudget(share=0.0, per_second=1.0, most=1.0, now_ms=10_000.0)
    assert budget.take(10_000.0)
    assert not budget.take(0.0)
    assert not budget.take(10_500.0)
    assert budget.take(11_000.0)


@pytest.mark.parametrize("wrong", [{"share": -0.1}, {"per_second": -1.0}, {"most": 0.5}])
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="retry budget"):
        RetryBudget(**wrong)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1_000)), max_size=300))
def test_retries_never_pass_bucket_plus_share_plus_trickle(
    steps: list[tuple[bool, int]],
) -> None:
    budget = RetryBudget(share=0.1, per_second=2.0, most=4.0)
    now_ms = requests = taken = 0
    for is_request, pause_ms in steps:
        now_ms += pause_ms
        if is_request:
            budget.request(now_ms)
            requests += 1
        else:
            taken += budget.take(now_ms)
        assert taken <= 4.0 + 0.1 * requests + 2.0 * now_ms / 1000 + 1e-6


@given(st.integers(1, 10_000), st.floats(0.0, 1.0, exclude_max=True))
def test_the_pause_is_jittered_and_capped(failures: int, jitter: float) -> None:
    pause_ms = backoff_ms(failures, 50.0, 2_000.0, jitter)
    assert 0.0 <= pause_ms < min(2_000.0, 50.0 * 2.0 ** min(failures - 1, 32))
