"""What an answer is chosen from, and how well it is chosen."""

from __future__ import annotations

import pytest

from dialoop.errors import EvalError
from dialoop.evals.choices import chosen_of, with_options
from dialoop.evals.labels import calibration_error
from dialoop.evals.ranking import recall_at, reciprocal_rank
from dialoop.evals.suites import task_named
from dialoop.evals.task import Case, Outcome, cases
from dialoop.types import Conversation, Message


def asked(*pairs: tuple[str, str], **metadata: object) -> tuple[Case, ...]:
    rows = [Conversation((Message("user", u), Message("assistant", a)), metadata=metadata) for u, a in pairs]
    return cases(rows)


LABELS = asked(("where is it?", "track"), ("give it back", "return"), ("hello", "greet"))


def test_labels_are_those_of_the_whole_set() -> None:
    (first, *_) = with_options(LABELS[:1], LABELS, "labels")
    assert first.options == ("greet", "return", "track")
    assert first.grades == (0.0, 0.0, 1.0)


def test_some_are_drawn_by_the_seed_and_hold_the_right_one_once() -> None:
    many = asked(*((f"q{i}", f"a{i}") for i in range(30)))
    found = with_options(many, many, "some", count=4, seed=1)
    assert all(len(set(case.options)) == 4 and sum(case.grades) == 1 for case in found)
    assert found == with_options(many, many, "some", count=4, seed=1)
    assert found != with_options(many, many, "some", count=4, seed=2)


def test_all_are_of_the_cases_language() -> None:
    both = (*LABELS, *asked(("包裹在哪？", "查询"), ("我要退货", "退货")))
    (*_, last) = with_options(both, both, "all")
    assert last.options == ("查询", "退货")


def test_a_case_can_bring_its_own_options_and_several_right_ones() -> None:
    (case,) = with_options(
        asked(("2+2?", "four"), options=["three", "four", "4"], relevant=["4"]), LABELS, "labels"
    )
    assert case.options == ("three", "four", "4")
    assert case.grades == (0.0, 1.0, 1.0)


def test_answers_that_are_no_labels_are_refused() -> None:
    many = asked(*((f"q{i}", f"a{i}") for i in range(500)))
    with pytest.raises(EvalError, match="take --task selection"):
        with_options(many, many, "labels")
    with pytest.raises(EvalError, match="1 option"):
        with_options(LABELS[:1], LABELS[:1], "labels")


def test_a_model_that_says_the_same_of_all_gains_nothing() -> None:
    assert recall_at(1).value([[0.0, 0.0]], [[1.0, 0.0]]) == 0
    assert reciprocal_rank().value([[0.0, 0.0]], [[1.0, 0.0]]) == 50


def test_ties_count_as_wrong_wherever_the_right_option_stands() -> None:
    rows = asked(("2+2?", "four"), options=["four", "three", "five"])
    (case,) = with_options(rows, rows, "labels")
    assert case.grades == (1.0, 0.0, 0.0)
    assert chosen_of(case, (-1.0, -1.0, -1.0)) != "four"
    assert chosen_of(case, (-1.0, -1.0, -2.0)) == "three"
    assert chosen_of(case, (-0.5, -1.0, -1.0)) == "four"
    assert recall_at(1).value([(-1.0,) * 3], [case.grades]) == 0
    assert calibration_error().value([(0.0,) * 3], [case.grades]) == pytest.approx(0)


def test_confidence_is_read_from_the_scores_of_options() -> None:
    from dialoop.evals.scores import scores_of

    chosen = with_options(LABELS, LABELS, "labels")
    outcomes = [Outcome(case, case.reference, scores=tuple(50 * g for g in case.grades)) for case in chosen]
    found = {row.metric: row for row in scores_of("m", outcomes, task_named("classification")).scores}
    assert found["accuracy"].value == 100
    assert found["ECE"].value == pytest.approx(0)
    assert "perplexity" not in found
