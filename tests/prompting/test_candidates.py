"""Candidates and successive halving."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.chat.prompt import Prompt
from dialoop.config.prompts import parse_prompt
from dialoop.errors import ConfigError
from dialoop.prompting.candidates import (
    example_sets,
    mutations,
    sentences,
    with_examples,
    with_instruction,
)
from dialoop.prompting.halving import halve, plan
from dialoop.store.prompts import shipped
from tests.prompting.test_selection import POOL, asked

CLASSIFY = shipped()["classify"].settings


def test_mutations_move_sentences_and_keep_the_templates_code() -> None:
    system = CLASSIFY.wording["en"].system
    found = dict(mutations(system, ["Think of a bank. Version 3.5 of it."]))
    assert {"a sentence left out", "two sentences exchanged", "a sentence added"} == set(found.values())
    assert all("{{ labels | join" in text and "{% endif %}" in text for text in found)
    assert any("Version 3.5 of it." in text for text in found)
    for text in found:
        Prompt(with_instruction(CLASSIFY, "en", text)).ask(asked("x"), {"labels": ["a"]}, language="en")


def test_chinese_sentences_are_sentences() -> None:
    assert sentences("你给消息分类。只回答一个名称，不要多说。") == [
        "你给消息分类。",
        "只回答一个名称，不要多说。",
    ]


def test_example_sets_have_different_classes_and_come_back_from_a_file() -> None:
    for found in example_sets(POOL.examples, [3, 6], 4, seed=1):
        assert {each.metadata["intent"] for each in found} == {"card", "parcel", "卡"}
        made = with_examples(CLASSIFY, found)
        again = parse_prompt(made.toml(), "x")
        assert again == made
        assert [e.messages for e in Prompt(again).examples("en")] == [e.messages for e in found]
    assert len(example_sets(POOL.examples, [99], 1, seed=1)[0]) == 6


@given(st.integers(1, 60), st.integers(500, 5000), st.integers(5, 300))
def test_a_plan_keeps_to_its_budget_and_halves(arms: int, budget: int, questions: int) -> None:
    rungs = plan(arms, budget, questions)
    asked_so_far, spent = 0, 0
    for left, many in rungs:
        assert asked_so_far <= many <= questions
        spent += left * (many - asked_so_far)
        asked_so_far = many
    assert spent <= budget
    assert rungs[0][1] >= min(5, questions, int(0.75 * budget / arms))
    assert [left for left, _ in rungs] == sorted((left for left, _ in rungs), reverse=True)
    assert rungs[0][0] == arms


def test_the_best_arm_wins_and_the_same_questions_are_put_to_all() -> None:
    heard: dict[int, list[int]] = {}

    def ask(arm: int, many: int) -> list[float]:
        heard.setdefault(many, []).append(arm)
        return [(arm * 7 % 10) + 0.1 * (question % 3) for question in range(many)]

    rungs = halve(10, 500, 40, ask)
    assert rungs[-1].arms[0] == 7
    assert len({len(arms) for arms in heard.values()}) > 1
    with pytest.raises(ConfigError, match="too small"):
        halve(100, 50, 40, ask)
