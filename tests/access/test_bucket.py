"""The token bucket, on a clock that the tests turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.access.account import duration
from dialoop.access.bucket import Bucket

gaps = st.floats(0, 200, allow_nan=False)
amounts = st.integers(1, 100)


@given(st.integers(1, 100), st.lists(st.tuples(gaps, amounts), max_size=40))
def test_no_span_of_time_gets_more_than_its_share_and_one_full_bucket(
    limit: int, asked: list[tuple[float, int]]
) -> None:
    bucket, now, taken = Bucket.full(limit, 0.0), 0.0, list[tuple[float, int]]()
    for gap, amount in asked:
        now += gap
        if amount <= limit and bucket.has(amount, now):
            bucket.take(amount, now)
            taken.append((now, amount))
    for i, (first, _) in enumerate(taken):
        for j in range(i, len(taken)):
            share = limit + (taken[j][0] - first) * limit / 60
            assert sum(amount for _, amount in taken[i : j + 1]) <= share + 1e-6


@given(st.integers(1, 1000), st.floats(0, 3000), st.integers(1, 2000))
def test_after_the_wait_that_it_names_there_is_enough(limit: int, owed: float, amount: int) -> None:
    bucket = Bucket.full(limit, 5.0)
    bucket.take(owed, 5.0)
    wait = bucket.wait(amount, 5.0)
    assert bucket.has(amount, 5.0 + wait + 1e-6)
    assert wait == 0 or not Bucket(limit, limit - owed, 5.0).has(amount, 5.0 + wait * 0.99 - 1e-6)


@given(st.integers(1, 100), st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), max_size=30))
def test_it_is_never_more_than_full_and_a_clock_that_goes_back_fills_nothing(
    limit: int, steps: list[tuple[float, float]]
) -> None:
    bucket, now = Bucket.full(limit, 0.0), 0.0
    for gap, amount in steps:
        before = bucket.left(now)
        now += gap
        assert bucket.left(now) <= limit
        if gap < 0:
            assert bucket.left(now) == before
        bucket.take(amount, now)


def test_a_full_bucket_gives_more_than_it_holds_once_and_is_in_debt_then() -> None:
    bucket = Bucket.full(60, 0.0)
    assert bucket.has(100, 0.0)
    bucket.take(100, 0.0)
    assert (bucket.left(0.0), bucket.has(1, 40.0), bucket.has(1, 41.0)) == (-40, False, True)


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "0s"), (0.1195, "120ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s")]
)
def test_durations_are_written_as_openai_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written
