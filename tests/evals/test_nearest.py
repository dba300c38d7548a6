"""The nearest-neighbour baseline."""

from __future__ import annotations

import pytest

from dialoop.errors import EvalError
from dialoop.evals.nearest import index
from dialoop.evals.task import cases
from dialoop.types import Conversation, Message


def talk(*turns: str, system: str = "") -> Conversation:
    roles = ("user", "assistant")
    spoken = tuple(Message(roles[i % 2], t) for i, t in enumerate(turns))  # type: ignore[arg-type]
    return Conversation((Message("system", system), *spoken) if system else spoken)


TRAINING = [
    talk("Where is my parcel?", "It is on its way."),
    talk("I want a refund for my shoes", "The refund has started."),
    talk("我的包裹到哪里了", "正在路上。"),
    talk("我要退款", "退款已提交。"),
    talk("What are your opening hours?", "Nine to five."),
]


@pytest.mark.parametrize("twin", TRAINING, ids=range(len(TRAINING)))
def test_the_twin_of_a_training_history_is_found(twin: Conversation) -> None:
    match = index(cases(TRAINING)).match(twin.history)
    assert match.answer == twin.answer
    assert match.score > 0


def test_a_paraphrase_finds_its_neighbour_in_both_languages() -> None:
    found = index(cases(TRAINING)).generate([talk("please refund the shoes"), talk("请问怎么退款呢")])
    assert found == ("The refund has started.", "退款已提交。")


def test_the_last_turn_counts_more_than_the_earlier_ones() -> None:
    history = talk("Where is my parcel?", "It is on its way.", "And what are your opening hours?")
    assert index(cases(TRAINING)).match(history).answer == "Nine to five."


def test_earlier_turns_decide_between_equal_last_turns() -> None:
    training = [
        talk("My lamp is broken", "Do you want a refund?", "yes please", "Lamp refunded."),
        talk("My chair is broken", "Do you want a refund?", "yes please", "Chair refunded."),
    ]
    history = talk("the chair broke", "Do you want a refund?", "yes please")
    assert index(cases(training)).match(history).answer == "Chair refunded."


def test_system_turns_do_not_count() -> None:
    training = [talk("hello", "Hi.", system="refund refund refund"), talk("a refund", "Done.")]
    assert index(cases(training)).match(talk("refund")).answer == "Done."


def test_among_equals_the_earliest_wins() -> None:
    training = [talk("hello", "first"), talk("hello", "second")]
    assert index(cases(training)).match(talk("hello")).position == 0


def test_a_history_that_shares_no_word_gets_an_empty_answer() -> None:
    match = index(cases(TRAINING)).match(talk("zzz"))
    assert (match.answer, match.position, match.score) == ("", -1, 0.0)


def test_an_empty_training_set_is_an_error() -> None:
    with pytest.raises(EvalError, match="no training case"):
        index([])
