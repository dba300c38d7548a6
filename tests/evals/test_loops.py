"""Endless repetition and the language of an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.evals.loops import answers_in, loops


@pytest.mark.parametrize(
    "text",
    [
        "I am happy to help. I am happy to help. I am happy to help.",
        "yes " * 12,
        "我可以帮助你。我可以帮助你。我可以帮助你。",
        "哈" * 18,
        "Well, the order is on its way now, and the order is on its way now but the order is on its way now",
        "I like to walk in the park every day with you. I like to walk in the park every day with you.",
        "请问您还有什么其他问题需要我帮助吗？请问您还有什么其他问题需要我帮助吗？",
        "订单 A100 已经发货了吗 订单 A100 已经发货了吗 订单 A100 已经发货了吗",
    ],
)
def test_an_answer_that_goes_in_circles_loops(text: str) -> None:
    assert loops(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ha ha ha ha ha",
        "Yes, yes, yes! I would love to.",
        "My name is Ben Smith. Yes, my name is Ben Smith, and I sell shoes.",
        "哈哈哈哈哈，太好笑了！",
        "好的好的，我马上帮您查一下订单。",
        "One, two, three, one, two, three, one, two, three: that is how a waltz is counted.",
        "The refund takes three days. The exchange takes five days. The repair takes ten days.",
    ],
)
def test_everyday_repetition_does_not_loop(text: str) -> None:
    assert not loops(text)


@given(st.lists(st.integers(0, 9999), unique=True, max_size=60))
def test_words_that_never_repeat_never_loop(numbers: list[int]) -> None:
    assert not loops(" ".join(f"w{n}" for n in numbers))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=12), st.integers(3, 6))
def test_four_words_or_more_three_times_in_a_row_always_loop(unit: list[str], times: int) -> None:
    assert loops(" ".join(unit * times))


def test_an_answer_must_be_in_the_language_asked_for() -> None:
    assert answers_in("好的", "zh")
    assert not answers_in("好的", "en")
    assert not answers_in("OK, no problem", "zh")


def test_a_bare_number_answers_in_every_language_and_silence_in_none() -> None:
    assert answers_in("15", "zh")
    assert answers_in("15.", "en")
    assert not answers_in("", "en")
    assert not answers_in("?!", "zh")
