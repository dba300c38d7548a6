"""Judges: both orders, rubrics, agreement with people, warnings."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from dialoop.backends.echo import EchoEngine, last_user_turn
from dialoop.errors import EvalError
from dialoop.evals.agreement import agreement
from dialoop.evals.judge import Rubric, grade, prefer
from dialoop.evals.task import Case
from dialoop.types import ChatRequest, Conversation, Delta, Message, Usage


class Judge:
    """Answers by a rule over what it is asked; remembers the requests."""

    def __init__(self, rule: Callable[[str], object]) -> None:
        self._rule = rule
        self.requests: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        yield Delta(text=json.dumps(self._rule(last_user_turn(request.conversation))))
        yield Delta(finish_reason="stop", usage=Usage())


def cases(count: int, language: str = "en") -> list[Case]:
    history = Conversation((Message("user", "where is it?"),))
    return [Case(history, "here", language, f"{i}", f"{i}", 0) for i in range(count)]


def better_a(text: str) -> str:
    """Prefers the answer that holds `good`."""
    first, second = text.split("Answer B:")
    return "tie" if ("good" in first) == ("good" in second) else "A" if "good" in first else "B"


async def test_a_preference_counts_where_it_survives_the_swap() -> None:
    judge = Judge(lambda text: {"winner": better_a(text)})
    found = await prefer(
        judge, "judge", cases(4), ["bad", "good", "bad", "same"], ["good", "bad", "also", "same"]
    )
    assert [each.winner for each in found.cases] == ["after", "before", "tie", "tie"]
    assert found.consistency.value == 1
    assert (found.flips.gained, found.flips.lost) == (1, 1)
    assert found.wins.value == 0.5
    assert len(judge.requests) == 6  # equal answers need no judge
    assert (
        found.words()
        == "judge prefers the answers after in 1 cases and those before in 1, 2 are ties (p 1.000)."
    )


async def test_a_judge_that_always_prefers_the_first_decides_nothing_and_is_called_weak() -> None:
    judge = Judge(lambda text: {"winner": "A"})
    found = await prefer(judge, "judge", cases(5), ["x"] * 5, ["y"] * 5)
    assert {each.winner for each in found.cases} == {"tie"}
    assert found.consistency.value == 0
    assert "Warning: this judge is weak: 100 % of its preferences changed" in found.words()
    assert "警告" in found.words("zh")
    with pytest.raises(EvalError, match="preferred no answer"):
        _ = found.wins


async def test_a_rubric_gives_whole_grades_and_is_asked_as_a_schema() -> None:
    judge = Judge(lambda text: {"score": 3 if "good" in text else 1})
    grades = await grade(judge, "judge", Rubric("Is it right?", 1, 3), cases(2), ["good", "bad"])
    assert grades == (3, 1)
    asked = judge.requests[0]
    assert asked.sampling.grammar is not None
    schema = json.loads(asked.sampling.grammar.text)
    assert schema["properties"]["score"]["enum"] == [1, 2, 3]
    assert "Is it right?" in asked.conversation.messages[0].content


async def test_chinese_cases_are_judged_in_chinese() -> None:
    judge = Judge(lambda text: {"score": 5})
    await grade(judge, "judge", Rubric("是否正确？"), cases(1, "zh"), ["好"])
    assert "你按下面的标准" in judge.requests[0].conversation.messages[0].content


async def test_a_judge_that_keeps_to_no_form_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(EvalError, match="ask a model that can keep to a schema"):
        await prefer(Judge(lambda text: {"winner": "both"}), "judge", cases(1), ["x"], ["y"])


async def test_an_engine_that_knows_no_formats_says_so() -> None:
    with pytest.raises(Exception, match="keeps to no format"):
        await prefer(EchoEngine(), "echo", cases(1), ["x"], ["y"])


ratings = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=40)


@given(ratings, st.booleans())
def test_kappa_equals_scikit_learns(pairs: list[tuple[int, int]], graded: bool) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    if len({*first, *second}) < 2:
        return
    known = list(range(1, 5))
    theirs = cohen_kappa_score(first, second, labels=known, weights="quadratic" if graded else None)
    ours = agreement(first, second, graded=graded).kappa
    assert ours == pytest.approx(theirs, nan_ok=True)


def test_a_judge_that_agrees_with_people_is_trusted_and_another_is_not() -> None:
    people = ["good", "bad"] * 30
    noise = np.random.default_rng(0).permutation(people)
    close = [*people[:54], *["good"] * 6]
    strong, weak = agreement(people, close), agreement(people, [str(each) for each in noise])
    assert not strong.weak
    assert strong.words().startswith("The judge agrees with people: kappa 0.9")
    assert weak.weak
    assert weak.words().startswith("Warning: this judge is weak: kappa with people")


def test_ratings_of_other_cases_are_refused() -> None:
    with pytest.raises(EvalError, match="1 ratings came beside 2"):
        agreement(["a"], ["a", "b"])
