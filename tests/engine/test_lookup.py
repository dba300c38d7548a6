"""Guesses from what a sequence has said before."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dialoop.engine.lookup import Lookup

LONGEST = 10_000
Ids = list[int]
few_tokens = st.lists(st.integers(0, 3), max_size=40)


def lookup_after(prompt: Ids, answer: Ids) -> Lookup:
    """Of a sequence whose answer came token by token."""
    ids = list(prompt)
    lookup = Lookup(ids, LONGEST)
    for token in answer:
        lookup.propose(4, start=0, odds=0)
        ids.append(token)
    return lookup


@given(few_tokens, few_tokens, st.integers(1, 6))
def test_a_guess_really_followed_the_same_tokens(prompt: Ids, answer: Ids, most: int) -> None:
    draft = lookup_after(prompt, answer).propose(most, start=0, odds=0)
    ids = prompt + answer
    whole = [*ids, *draft]
    if draft:
        assert len(draft) == most
        assert any(
            ids[stop - 2 : stop] == ids[-2:] and whole[stop : stop + most] == list(draft)
            for stop in range(2, len(ids))
        )


@given(few_tokens, few_tokens)
def test_the_longest_match_is_taken_and_the_most_recent_of_those(prompt: Ids, answer: Ids) -> None:
    ids = prompt + answer
    found = [
        (order, stop)
        for order in (2, 3)
        for stop in range(3, len(ids))
        if ids[stop - order : stop] == ids[-order:]
    ]
    draft = lookup_after(prompt, answer).propose(1, start=0, odds=0)
    assert draft == ((ids[max(found)[1]],) if found else ())


@given(few_tokens, few_tokens, st.sampled_from([0.0, 0.25, 0.5]))
def test_it_makes_no_difference_when_it_is_asked(prompt: Ids, answer: Ids, odds: float) -> None:
    ids = list(prompt)
    late = Lookup(ids, LONGEST)
    ids += answer
    assert late.propose(6, start=odds, odds=odds) == lookup_after(prompt, answer).propose(
        6, start=odds, odds=odds
    )


@given(few_tokens, st.integers(0, 60))
def test_a_guess_leaves_room_for_the_token_that_is_chosen_after_it(ids: Ids, longest: int) -> None:
    draft = Lookup(ids, longest).propose(9, start=0, odds=0)
    assert not draft or len(ids) + len(draft) < longest


def test_a_loop_is_followed_round() -> None:
    assert Lookup([1, 2, 3, 1, 2, 3], LONGEST).propose(7, start=0, odds=0) == (1, 2, 3, 1, 2, 3, 1)


def test_text_that_copies_is_noticed_within_a_few_tokens_and_guessed_ever_further() -> None:
    document = [*range(100, 200)]
    lengths = [
        len(lookup_after([*document, 7, 8], document[:said]).propose(99, start=0.5, odds=0.25))
        for said in range(3, 20)
    ]
    assert lengths[:5] == [0, 0, 2, 3, 5]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 20


def test_text_that_goes_on_otherwise_each_time_is_soon_guessed_no_more() -> None:
    dice = random.Random(1)
    pairs = [(a, a + 1, dice.randrange(10**6)) for a in dice.choices(range(0, 40, 2), k=400)]
    ids = [token for pair in pairs for token in pair]
    drafts = [
        lookup_after(ids[:300], ids[300:stop]).propose(9, start=0.25, odds=0.25)
        for stop in range(302, 600, 3)
    ]
    assert drafts[0]
    assert not any(drafts[6:])


def test_text_without_a_match_is_guessed_nothing() -> None:
    assert lookup_after([*range(50)], [*range(50, 90)]).propose(9, start=0, odds=0) == ()
