"""Prompts before a tiny model: classes by probability, examples, nothing asked twice, and the search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dialoop.chat.prompt import Prompt
from dialoop.chat.wire import conversation_from_openai
from dialoop.config.optimising import OptimiseSettings
from dialoop.config.prompts import parse_prompt
from dialoop.errors import EvalError
from dialoop.evals.task import Case
from dialoop.jobs.optimise import Optimiser
from dialoop.jobs.prompt_data import PromptData, prompt_data
from dialoop.jobs.prompted import Asking, Prompted, with_few_shot
from dialoop.jobs.proposals import proposed
from dialoop.prompting.calibration import calibrated, probabilities
from dialoop.store.prompts import shipped
from dialoop.types import Conversation, Message, ModelRef
from tests.serve.scripted import Scripted
from tests.tiny import long_dialogues, tiny_model

CLASSIFY = Prompt(shipped()["classify"].settings)
REF = ModelRef("tiny", tiny_model())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    things = {"lost_card": "card", "late_parcel": "parcel", "refund": "money"}
    rows = [
        {"text": f"number {i} {thing} {i * i % 17}", "label": label}
        for i in range(14)
        for label, thing in things.items()
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def data(source: str, tmp_path_factory: pytest.TempPathFactory) -> PromptData:
    folder = tmp_path_factory.mktemp("scratch")
    return prompt_data([source], [], "classification", folder, max_cases=12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompted]:
    with Prompted(REF, max_tokens=6, kept=tmp_path_factory.mktemp("kept")) as model:
        yield model


def test_labels_are_words_and_no_example_is_a_case(data: PromptData, source: str, tmp_path: Path) -> None:
    assert data.labels == ("late parcel", "lost card", "refund")
    asked = {case.history.messages[0].content for case in data.cases}
    assert len(asked) == 12
    assert not asked & {each.messages[0].content for each in data.pool}
    with pytest.raises(EvalError, match="drop-leaks"):
        prompt_data([source], [source], "classification", tmp_path, max_cases=5)
    left = prompt_data([source], [source], "classification", tmp_path, max_cases=5, drop_leaks=True)
    assert len(left.leaked.places) >= 5
    assert len(left.pool) == 42 - len(left.leaked.places)


def test_a_class_is_told_by_its_calibrated_probability(model: Prompted, data: PromptData) -> None:
    plain, freed = (Asking(CLASSIFY, {}, None, data.labels, calibrate) for calibrate in (False, True))
    shown = model.shown(plain, data.cases[:4])
    raw, found = model.shares(plain, shown), model.shares(freed, shown)
    assert np.allclose(raw.sum(1), 1)
    empty = [
        CLASSIFY.ask(Conversation((Message("user", text),)), language=data.cases[0].language)
        for text in ("N/A", "[MASK]", "")
    ]
    scored = [model.scores(each, data.labels) for each in empty]
    assert np.allclose(found, calibrated(raw, probabilities(np.array(scored))))
    answers = [outcome.answer for outcome in model.outcomes(freed, data.cases[:4])]
    assert answers == [data.labels[place] for place in found.argmax(1)]


def test_every_selection_fits_its_budget_of_tokens(model: Prompted, data: PromptData) -> None:
    for select in ("random", "bm25", "embeddings", "mmr", "balanced"):
        few = with_few_shot(CLASSIFY, select=select, count=4, max_tokens=60)
        asking = Asking(few, {}, data.pool, data.labels)
        for each in model.shown(asking, data.cases[:3]):
            alone = few.ask(each.case.history, language=each.case.language, examples=())
            assert 0 < len(each.examples) <= 4
            assert model.tokens(each.asked) - model.tokens(alone) <= 60


def test_what_was_asked_is_not_asked_again(data: PromptData, tmp_path: Path) -> None:
    heard: list[list[str]] = []
    for _ in range(2):
        told: list[str] = []
        with Prompted(REF, max_tokens=4, kept=tmp_path) as model:
            few = Asking(with_few_shot(CLASSIFY, select="bm25", count=2), {}, data.pool)
            heard.append([str(each.answer) for each in model.outcomes(few, data.cases[:3])])
            told.append((tmp_path / f"{model.hash}.jsonl").read_text())
        heard[-1] += [str(len(text.splitlines())) for text in told]
    assert heard[0] == heard[1]


def test_a_history_that_is_too_long_is_scored_as_if_its_oldest_turns_had_not_been_said(
    tmp_path: Path,
) -> None:
    (row,) = long_dialogues(1)
    history = conversation_from_openai({"messages": row["messages"][:-1]})
    case = Case(history, "late", "en", "g", "long", 0)
    dialogue = Prompt(shipped()["dialogue"].settings)
    asking = Asking(dialogue, {}, None, ("late", "here"), calibrate=False)
    for _ in range(2):
        with Prompted(REF, max_tokens=4, kept=tmp_path) as model:
            shown = model.shown(asking, [case])
            assert model.tokens(shown[0].asked) > 256
            found = model.shares(asking, shown)
            (likely,) = model.likelihoods(asking, [case])
            (written,) = model.outcomes(Asking(dialogue), [case])
            assert model.shortened == 3
            left = range(2, len(history.messages), 2)
            rest = next(
                shorter
                for start in left
                if model.tokens(dialogue.ask(shorter := replace(history, messages=history.messages[start:])))
                <= 256 - 8
            )
            short = replace(case, history=rest)
            assert np.allclose(found, model.shares(asking, model.shown(asking, [short])))
            assert likely.log_likelihood == model.likelihoods(asking, [short])[0].log_likelihood
            assert written.answer == model.outcomes(Asking(dialogue), [short])[0].answer
            assert model.shortened == 3


SETTINGS = OptimiseSettings(
    budget=120, trial_cases=6, test_cases=6, shots=(2,), example_sets=1, selections=("bm25",), mutations=2,
    instructions=("Say what it is about.",), keep=2,
)  # fmt: skip


def search(model: Prompted, data: PromptData, said: list[str]) -> tuple[str, str]:
    found = Optimiser(
        model, CLASSIFY.settings, data, SETTINGS, language="en", values={}, proposed=("Name the thing.",),
        say=said.append,
    ).run()  # fmt: skip
    return found.best.settings.toml(), json.dumps(found.evidence)


def test_a_search_exports_a_template_that_scores_the_same(model: Prompted, data: PromptData) -> None:
    said: list[str] = []
    toml, evidence = search(model, data, said)
    assert search(model, data, []) == (toml, evidence)
    told = json.loads(evidence)
    assert 0 < told["asked"] <= 120
    assert (told["trial_cases"], told["test_cases"]) == (6, 6)
    assert told["verdict"]
    assert any(line.startswith("round 2") for line in said)
    origins = {each["origin"] for each in told["candidates"]}
    assert {"as it came", "hand-given", "proposed"} & origins
    again = Asking(Prompt(parse_prompt(toml, "x")), {}, None, data.labels)
    accuracy = next(each for each in told["changes"] if each["metric"] == "accuracy")
    cases = list(data.cases)
    right = [
        outcome.answer == outcome.case.reference
        for outcome in model.outcomes(again, cases)
        if outcome.case.id in told["test_case_ids"]
    ]
    assert accuracy["after"] == pytest.approx(100 * sum(right) / len(right))


def test_proposals_are_asked_for_once_and_hold_no_template_code(data: PromptData, tmp_path: Path) -> None:
    engine = Scripted(script={})
    kept = tmp_path / "proposals.json"
    found = proposed(engine, "echo", "en", "Sort {{ labels }}.", data.pool, 3, kept)
    assert len(found) == 1
    assert "{{" not in found[0]
    assert len(engine.heard) == 3
    assert proposed(engine, "echo", "en", "Sort.", data.pool, 3, kept) == found
    assert len(engine.heard) == 3
