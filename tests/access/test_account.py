"""Budgets and rates of one key: reserved before, settled after."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dialoop.access.account import Account, Reservation
from dialoop.errors import OverloadedError, QuotaError
from dialoop.store.keys import Allowance, Key


class Times:
    """Clocks that stand still until they are set."""

    def __init__(self, day: str = "2026-11-25") -> None:
        self.seconds = 0.0
        self.day = day

    def wall(self) -> int:
        return int(datetime.fromisoformat(self.day).replace(tzinfo=UTC).timestamp() * 1e6)


def account(times: Times, written: int = 0, **allowed: object) -> Account:
    key = Key(
        "key-1", "proj-1", "desk", "sk-12345678", "", ("inference",), Allowance(**allowed), 0, None, None  # type: ignore[arg-type]
    )  # fmt: skip
    return Account(key, written, lambda *_: None, clock=lambda: times.seconds, wall=times.wall)


PROMPT, ROOM = 5, 40
requests = st.lists(
    st.tuples(st.booleans(), st.none() | st.integers(1, ROOM), st.floats(0, 1)), min_size=1, max_size=60
)


@given(st.integers(0, 300), requests)
@example(15, [(True, 5, 0.0), (True, None, 1.0), (False, None, 0.0), (True, None, 1.0)])
@example(205, [(True, None, 0.0)] * 4 + [(True, 21, 0.0)])
def test_a_budget_is_overrun_by_one_request_at_most(
    budget: int, steps: list[tuple[bool, int | None, float]]
) -> None:
    """Requests begin and end in any order; each says at most what it asked for, or what there is room for."""
    mine = account(Times(), budget=budget, period="day")
    used, open_ = 0, list[tuple[Reservation, int]]()
    for begins, answer, share in steps:
        if begins:
            try:
                open_.append((mine.reserve(PROMPT, answer, ROOM), round((answer or ROOM) * share)))
            except (OverloadedError, QuotaError):
                free = budget - used - sum(held.budget for held, _ in open_)
                assert free < PROMPT + (answer or 0)
        elif open_:
            held, said = open_.pop(round(share * (len(open_) - 1)))
            mine.settle(held, "m", PROMPT, said)
            used += PROMPT + said
    for held, said in open_:
        mine.settle(held, "m", PROMPT, said)
        used += PROMPT + said
    assert used <= budget + PROMPT + ROOM
    assert mine.left == budget - used


def test_a_new_period_begins_with_all_of_the_budget() -> None:
    times = Times("2026-11-30")
    mine = account(times, 95, budget=100, period="month")
    with pytest.raises(QuotaError, match="5 of this key's 100 tokens a month") as refused:
        mine.reserve(6, 1, 0)
    assert "2026-12-01 00:00 UTC" in str(refused.value)
    assert refused.value.retry_after == 86_400
    held = mine.reserve(3, None, 50)
    assert mine.left == 5 - 53
    times.day = "2026-12-01"
    mine.settle(held, "m", 3, 30)
    assert mine.left == 100 - 33


def test_what_open_requests_have_set_aside_is_waited_for_and_not_called_used_up() -> None:
    mine = account(Times(), budget=100, period="month")
    held = mine.reserve(10, None, 200)
    with pytest.raises(OverloadedError, match="set aside for its open requests") as busy:
        mine.reserve(10, 10, 200)
    assert busy.value.retry_after == 1
    with pytest.raises(QuotaError):
        mine.reserve(10, 91, 200)
    mine.settle(held, "m", 10, 5)
    mine.reserve(10, 10, 200)


def test_tokens_of_a_minute_are_reserved_as_asked_and_settled_as_used() -> None:
    times = Times()
    mine = account(times, tpm=60)
    held = mine.reserve(10, 30, 100)
    with pytest.raises(
        OverloadedError, match="tokens came faster than the 60 a minute of key 'desk'"
    ) as slow:
        mine.reserve(10, 30, 100)
    assert slow.value.retry_after == 20
    mine.settle(held, "m", 10, 5)
    assert mine.headers() == {
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "45",
        "x-ratelimit-reset-tokens": "15s",
    }
    mine.settle(mine.reserve(10, None, 100), "m", 10, 90)
    times.seconds = 54.0
    with pytest.raises(OverloadedError):
        mine.reserve(1, 0, 0)
    times.seconds = 57.0
    mine.reserve(1, 0, 0)


def test_a_request_for_more_than_the_minute_holds_waits_for_all_of_it_and_locks_nobody_out() -> None:
    times = Times()
    mine = account(times, tpm=60)
    held = mine.reserve(10, 10**9, 10**9)
    with pytest.raises(OverloadedError) as slow:
        mine.reserve(30, 0, 0)
    assert slow.value.retry_after == 30
    mine.settle(held, "m", 10, 20)
    mine.reserve(30, 0, 0)


def test_requests_of_a_minute_are_counted() -> None:
    times = Times()
    mine = account(times, rpm=2)
    mine.count_request()
    mine.count_request()
    with pytest.raises(OverloadedError, match="requests came faster") as slow:
        mine.count_request()
    assert slow.value.retry_after == 30
    times.seconds = 30.0
    mine.count_request()


def test_what_a_refused_request_reserved_is_given_back() -> None:
    mine = account(Times(), tpm=100, budget=100, period="day")
    mine.settle(mine.reserve(50, 50, 0), "m", 0, 0)
    assert (mine.left, mine.headers()["x-ratelimit-remaining-tokens"]) == (100, "100")
