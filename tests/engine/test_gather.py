"""Deltas of quick steps are told together, late by no more than a frame of a screen, and none is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dialoop.engine.gather import LONGEST, Gatherer, joined
from dialoop.types import Delta, Usage

QUICK = LONGEST / 8


class Heard:
    """What a gatherer passes on, and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.frames: list[Sequence[tuple[int, Any]]] = []
        self.gatherer = Gatherer(self.frames.append, lambda: self.now)

    def say(self, *said: tuple[int, object], after: float = QUICK) -> None:
        self.now += after
        self.gatherer(list(said))

    def texts(self) -> list[str]:
        """Of each frame that has deltas."""
        return ["".join(d.text for _, event in frame for d in event) for frame in self.frames]


def says(text: str, number: int = 0, **more: object) -> tuple[int, list[Delta]]:
    return number, [replace(Delta(0, text), **more)]  # type: ignore[arg-type]


def test_the_first_and_the_last_words_are_told_at_once_and_those_between_together() -> None:
    heard = Heard()
    for text in "abcd":
        heard.say(says(text))
    assert heard.texts() == ["a"]
    heard.say(says("e", finish_reason="stop", usage=Usage(1, 5)))
    assert heard.texts() == ["a", "bcde"]
    _, told = heard.frames[1][0]
    assert told == [Delta(0, "bcde", "stop", Usage(1, 5))]


def test_words_wait_no_longer_than_a_frame_of_a_screen_and_slow_steps_wait_for_nothing() -> None:
    heard = Heard()
    for text in "abcdefghijklmnop":
        heard.say(says(text))
    assert heard.texts()[0] == "a"
    assert max(map(len, heard.texts())) * QUICK <= LONGEST
    for text in "qrs":
        heard.say(says(text), after=LONGEST)
    assert heard.texts()[-2:] == ["r", "s"]


def test_an_answer_that_begins_does_not_wait_for_those_that_go_on() -> None:
    heard = Heard()
    heard.say(says("a"))
    heard.say(says("b"))
    heard.say(says("c"), says("x", number=1))
    assert heard.texts() == ["a", "bcx"]


def test_what_is_no_delta_comes_at_once_and_after_what_waits() -> None:
    heard = Heard()
    heard.say(says("a"))
    heard.say(says("b"))
    error = ValueError("broken")
    heard.say((0, error))
    heard.say((5, [[0.5, 0.25]]))
    assert heard.frames[1] == [(0, [Delta(0, "b")]), (0, error)]
    assert heard.frames[2] == [(5, [[0.5, 0.25]])]


deltas = st.builds(
    Delta, st.integers(0, 2), st.text(max_size=3), st.none(),
    token_ids=st.lists(st.integers(0, 9), max_size=2).map(tuple),
)  # fmt: skip
steps = st.lists(
    st.tuples(st.floats(0, 2 * LONGEST), st.dictionaries(st.integers(0, 3), st.lists(deltas, min_size=1)))
)


@given(steps)
def test_every_answer_gets_its_words_in_their_order(told: list[tuple[float, dict[int, list[Delta]]]]) -> None:
    heard = Heard()
    for after, said in told:
        heard.say(*said.items(), after=after)
    heard.say((9, ValueError()))
    for number in range(4):
        given = list(chain.from_iterable(said.get(number, []) for _, said in told))
        found = [d for frame in heard.frames for n, event in frame if n == number for d in event]
        for index in range(3):
            for kept in ("text", "token_ids"):
                whole = [[getattr(d, kept) for d in each if d.index == index] for each in (given, found)]
                assert [*chain.from_iterable(whole[0])] == [*chain.from_iterable(whole[1])]
        assert joined(found) == joined(given)
