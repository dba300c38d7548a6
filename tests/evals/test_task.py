"""Cases out of conversations, and running a model over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialoop.errors import EvalError
from dialoop.evals.task import cases, run, unasked
from dialoop.types import Conversation, Message


def talk(*turns: str, **metadata: object) -> Conversation:
    """Turns of user and assistant in turn."""
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[i % 2], t) for i, t in enumerate(turns)), metadata=metadata)  # type: ignore[arg-type]


def test_every_assistant_turn_is_a_case_with_what_came_before_it() -> None:
    first, second = cases([talk("hi", "hello", "bye", "see you", id="c1", scenario="s1", intent="chat")])
    assert (first.reference, second.reference) == ("hello", "see you")
    assert [m.content for m in second.history.messages] == ["hi", "hello", "bye"]
    assert (first.id, second.id, second.index) == ("c1/0", "c1/1", 1)
    assert (first.group, first.intent, first.language) == ("scenario:s1", "chat", "en")
    assert second.answered.answer == "see you"
    assert second.answered.history == second.history


def test_only_the_last_turn_on_demand() -> None:
    (only,) = cases([talk("hi", "hello", "bye", "see you")], turns="last")
    assert (only.reference, only.index) == ("see you", 1)


def test_turns_that_cannot_be_asked_are_left_out_and_counted() -> None:
    greeting = Conversation(
        (Message("assistant", "Welcome!"), Message("user", "hi"), Message("assistant", " "))
    )
    conversations = [greeting, talk("hi", "hello")]
    assert [case.reference for case in cases(conversations)] == ["hello"]
    assert unasked(conversations) == 2
    assert unasked([talk("hi")], turns="last") == 1


def test_the_language_is_read_from_metadata_or_else_from_the_answers() -> None:
    found = cases([talk("order 12", "您的订单已发货"), talk("hi", "hello", language="zh")])
    assert [case.language for case in found] == ["zh", "zh"]


def test_turns_of_a_conversation_without_a_scenario_are_one_group() -> None:
    found = cases([talk("a", "b", "c", "d"), talk("a", "b")])
    assert [case.group for case in found] == ["conversation:0", "conversation:0", "conversation:1"]


def test_few_cases_are_spread_evenly_over_languages_and_groups() -> None:
    english = [
        talk("hi", f"hello {i}", language="en", scenario=f"e{i // 10}", id=f"e{i}") for i in range(100)
    ]
    chinese = [talk("在吗", f"在的{i}", language="zh", scenario=f"z{i}", id=f"z{i}") for i in range(20)]
    chosen = cases(english + chinese, max_cases=20, seed=1)
    assert Counter(case.language for case in chosen) == {"en": 10, "zh": 10}
    assert len({case.group for case in chosen if case.language == "en"}) == 10


def test_a_short_language_leaves_its_share_to_the_other() -> None:
    conversations = [talk("hi", f"hello {i}", language="en") for i in range(50)]
    conversations.append(talk("在吗", "在的", language="zh"))
    chosen = cases(conversations, max_cases=20)
    assert Counter(case.language for case in chosen) == {"en": 19, "zh": 1}


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(0, 5))
def test_the_choice_repeats_with_its_seed_and_keeps_the_order(wanted: int, seed: int) -> None:
    conversations = [talk("q", f"a{i}", "q", f"b{i}", scenario=str(i % 3), id=f"{i:02}") for i in range(6)]
    chosen = cases(conversations, max_cases=wanted, seed=seed)
    assert chosen == cases(conversations, max_cases=wanted, seed=seed)
    assert len(chosen) == wanted
    assert [case.id for case in chosen] == sorted(case.id for case in chosen)


def test_conversations_without_an_answer_are_an_error() -> None:
    with pytest.raises(EvalError, match="no assistant turn"):
        cases([talk("hi")])


def shout(histories: Sequence[Conversation]) -> list[str]:
    return [history.messages[-1].content.upper() for history in histories]


def lengths(answered: Sequence[Conversation]) -> list[tuple[float, int]]:
    return [(-float(len(c.answer)), len(c.answer)) for c in answered]


def test_a_run_answers_the_histories_and_scores_the_references() -> None:
    asked = cases([talk("hi", "hello", "bye", "see you")])
    first, second = run(asked, shout, lengths)
    assert (first.answer, second.answer) == ("HI", "BYE")
    assert (first.log_likelihood, first.tokens) == (-5.0, 5)
    assert second.case is asked[1]


def test_more_cases_may_be_scored_than_are_answered() -> None:
    everything = cases([talk("hi", "hello", "bye", "see you", id="c")])
    outcomes = run(everything[1:], shout, lengths, scored=everything)
    assert [(o.case.id, o.answer, o.tokens) for o in outcomes] == [("c/1", "BYE", 7), ("c/0", None, 5)]


def test_a_baseline_without_likelihoods_has_none() -> None:
    (outcome,) = run(cases([talk("hi", "hello")]), shout)
    assert outcome.log_likelihood is None


def test_a_model_that_returns_too_few_answers_is_an_error() -> None:
    with pytest.raises(EvalError, match="generate gave 1 results for 2"):
        run(cases([talk("hi", "hello", "bye", "see you")]), lambda histories: ["one"])
