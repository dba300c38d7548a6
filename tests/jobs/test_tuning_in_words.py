"""A recipe that names a prompt: its rows are learnt in the words in which they are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dialoop.chat.prompt import Prompt
from dialoop.chat.render import render, render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import TuneRecipe
from dialoop.errors import ConfigError, DataError, DialoopError, EvalError, StoreError
from dialoop.jobs.dry_run import dry_run
from dialoop.jobs.given import Given, given
from dialoop.jobs.origins import leak_of, lineage, newest
from dialoop.jobs.tuning import run_tuning
from dialoop.store.prompts import shipped
from dialoop.store.registry import Store
from dialoop.types import Conversation
from tests.jobs.test_tuning import Notes
from tests.tiny import make_tiny_model

SHOWN = """
name = "shown"
[wording.en]
system = "Answer the desk's way."
[[examples]]
messages = [{ role = "user", content = "Is it open?" }, { role = "assistant", content = "Till six." }]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"), context=512)


def recipe(base: Path, prompt: Any, sources: list[str], columns: Any = None, **changes: Any) -> TuneRecipe:
    return TuneRecipe.model_validate({
        "name": "desk", "base": str(base), "method": {"kind": "lora", "rank": 4},
        "data": {"sources": sources, "columns": columns or {}, "limit": 120, "prompt": prompt,
                 "split": {"group_by": ["scenario"]}},
        "optim": {"learning_rate": 1e-2},
        "train": {"epochs": 1, "batch_tokens": 1024, "max_length": 512, "patience": 0},
        "eval": {"max_cases": 6, "max_tokens": 4, "resamples": 200}, **changes,
    })  # fmt: skip


def read(home: Path, asked: TuneRecipe) -> Given:
    with Store.open(home) as store:
        return given(store, asked, home / "scratch")


def said_in(row: Conversation) -> list[str]:
    return [turn.content for turn in row.messages]


def learnt_texts(row: Conversation, tokenizer: ChatTokenizer) -> list[str]:
    """What of a row is learnt, in stretches."""
    rendered = render(row, tokenizer)
    texts, stretch = [], list[int]()
    for token, weight in zip((*rendered.token_ids, 0), (*rendered.loss_mask, 0.0), strict=True):
        if weight:
            stretch.append(token)
        elif stretch:
            texts.append(tokenizer.decode(stretch))
            stretch = []
    return [text.strip() for text in texts]


def test_classes_are_tuned_judged_and_kept_under_one_prompt(base: Path, tmp_path: Path) -> None:
    asked = recipe(
        base, {"name": "classify", "task": "classification"}, ["sample:en", "sample:zh"],
        {"label": "metadata.intent"},
    )  # fmt: skip
    done = run_tuning(asked, tmp_path, tmp_path / "runs/desk", "dialoop tune", Notes())
    assert done.version is not None
    assert done.report is not None
    assert done.version.prompt == "classify@0"
    assert done.report.task == "classification"
    assert {row.change.metric for row in done.report.rows} >= {"accuracy", "macro F1"}
    told = json.loads((done.folder / "report.json").read_text(encoding="utf-8"))
    assert told["identity"]["more"]["prompt"] == "classify@0"
    with Store.open(tmp_path) as store:
        assert "prompt classify@0)" in lineage(store.models, "desk")
        known = read(tmp_path, asked)
        leak = leak_of(newest(store.models, "desk"), known.dataset.train[:5], tmp_path / "scratch")
    assert leak.share == 1.0

    tokenizer = ChatTokenizer.load(base)
    labels = sorted({row.answer for row in (*known.dataset.train, *known.dataset.valid, *known.dataset.test)})
    assert "cancel order" in labels
    prompt = Prompt(shipped()["classify"].settings)
    for row, plain in zip(known.learnt.train[:9], known.dataset.train[:9], strict=True):
        served = render_prompt(
            prompt.ask(plain.history, {"labels": labels}, language=plain.metadata["language"]), tokenizer
        )
        assert render(row, tokenizer).token_ids[: len(served)] == served
        assert learnt_texts(row, tokenizer) == [plain.answer]
    chosen = known.cases()
    assert {case.options for case in chosen.asked} == {tuple(labels)}
    assert chosen.ask(chosen.asked[0]) == prompt.ask(
        chosen.asked[0].history, {"labels": labels}, language=chosen.asked[0].language
    )


def test_a_prompt_that_tells_the_dialogue_makes_a_row_of_every_answer(base: Path, tmp_path: Path) -> None:
    known = read(tmp_path, recipe(base, "dialogue", ["sample:zh"]))
    answers = [
        turn.content
        for row in known.dataset.train
        for i, turn in enumerate(row.messages)
        if turn.role == "assistant" and any(each.role == "user" for each in row.messages[:i])
    ]
    tokenizer = ChatTokenizer.load(base)
    assert [row.answer for row in known.learnt.train] == answers
    assert [learnt_texts(row, tokenizer) for row in known.learnt.train[:6]] == [[a] for a in answers[:6]]
    assert "给定对话历史" in known.learnt.train[0].messages[-2].content
    assert known.recipe.data.prompt is not None
    assert known.recipe.data.prompt.name == "dialogue@0"
    assert "给定对话历史" in "".join(
        piece.text for piece in dry_run(known.recipe, tmp_path, samples=1).samples[0]
    )


def test_what_a_prompt_shows_is_read_and_not_learnt(base: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.prompts.add(SHOWN)
    known = read(tmp_path, recipe(base, "shown", ["sample:en"]))
    assert len(known.learnt.train) == len(known.dataset.train)
    row, plain = known.learnt.train[0], known.dataset.train[0]
    assert [turn.content for turn in row.messages[:3]] == [
        "Answer the desk's way.",
        "Is it open?",
        "Till six.",
    ]
    assert row.messages[3:] == plain.messages
    said = [turn.content for turn in plain.messages if turn.role == "assistant"]
    assert learnt_texts(row, ChatTokenizer.load(base)) == said


def test_a_share_of_the_rows_is_learnt_without_examples(base: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.prompts.add(SHOWN)
    bare = []
    for share in (0.0, 0.5, 0.99):
        prompt = {"name": "shown", "without_examples": share}
        known = read(tmp_path, recipe(base, prompt, ["sample:en"]))
        asked = known.cases()
        assert "Is it open?" in said_in(asked.ask(asked.asked[0]))
        rows = [said_in(row) for row in known.learnt.train]
        bare.append({i for i, row in enumerate(rows) if "Is it open?" not in row})
        for i in bare[-1]:
            assert "Answer the desk's way." in rows[i][0]
            assert rows[i][1:] == [said for said in said_in(known.dataset.train[i]) if said not in rows[i][0]]
    assert bare[0] == set()
    assert 0.3 < len(bare[1]) / len(rows) < 0.7
    assert bare[1] < bare[2]


def test_pairs_of_answers_are_preferred_after_the_prompt(base: Path, tmp_path: Path) -> None:
    asked = recipe(base, "dialogue", ["sample:preference"], objective={"kind": "orpo"})
    known = read(tmp_path, asked)
    pair, plain = known.learnt.test[0], known.dataset.test[0]
    assert pair.history.messages[-1].content.startswith(("Given the dialogue", "给定对话历史"))
    assert pair.chosen == plain.messages[-1]
    assert known.cases().asked[0].history.messages[-1].content in pair.history.messages[-1].content


def test_a_rows_own_values_come_after_the_recipes(base: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "早上好"}, {"role": "assistant", "content": "Good morning"}]
    told = [{"messages": turns, "metadata": {"into": "en", "scenario": f"{i}"}} for i in range(20)]
    rows.write_text("\n".join(map(json.dumps, told)), encoding="utf-8")
    plain = {"sources": [f"file:{rows}"], "clean": {"steps": ["roles"]}, "split": {"valid": 0.2, "test": 0.2}}
    by_row = recipe(base, None, [], data={**plain, "prompt": "translate"})
    given_ = {"name": "translate", "values": {"into": "zh"}}
    by_recipe = recipe(base, None, [], data={**plain, "prompt": given_})
    shown = [read(tmp_path, each).learnt.train[0].messages[0].content for each in (by_row, by_recipe)]
    assert ["英文" in shown[0] or "English" in shown[0], "中文" in shown[1] or "Chinese" in shown[1]] == [
        True
    ] * 2


@pytest.mark.parametrize(
    ("prompt", "kind", "match"),
    [
        ("dialog", StoreError, "no prompt 'dialog' here; did you mean 'dialogue'"),
        ("question", DataError, "passage is missing: .* data.prompt.values, or in the metadata"),
        ("learnt", ConfigError, "answered by the learnt prompt of desk@1: tune that model"),
        ("near", ConfigError, "chooses its examples by vectors"),
        ("telling", EvalError, "1 examples ask what a test case asks"),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_asked(
    prompt: str, kind: type[DialoopError], match: str, base: Path, tmp_path: Path
) -> None:
    asked = recipe(base, prompt, ["sample:en"])
    plain = read(tmp_path, recipe(base, None, ["sample:en"]))
    example = ", ".join(
        f"{{ role = {json.dumps(turn.role)}, content = {json.dumps(turn.content)} }}"
        for turn in plain.cases().asked[0].answered.messages
    )
    with Store.open(tmp_path) as store:
        store.prompts.add('name = "learnt"\nsoft = "desk@1"\n[wording.en]\nsystem = "x"\n')
        store.prompts.add('name = "near"\n[few_shot]\nselect = "embeddings"\n[wording.en]\nsystem = "x"\n')
        store.prompts.add(
            f'name = "telling"\n[wording.en]\nsystem = "x"\n[[examples]]\nmessages = [{example}]\n'
        )
    with pytest.raises(kind, match=match):
        run_tuning(asked, tmp_path, tmp_path / "runs/desk", "dialoop tune", Notes())


def test_recipes_that_would_learn_the_prompt_or_class_pairs_are_refused(base: Path) -> None:
    with pytest.raises(ValidationError, match='take "assistant" or "last"'):
        recipe(base, "dialogue", ["sample:en"], train={"mask": "all"})
    with pytest.raises(ValidationError, match="one right label a row"):
        recipe(
            base, {"name": "classify", "task": "classification"}, ["sample:preference"],
            objective={"kind": "dpo"},
        )  # fmt: skip
