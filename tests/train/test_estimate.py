"""What a run will take is told before it, and telling leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialoop.chat.render import render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.train.estimate import Estimate, estimate, pieces
from dialoop.train.loop import read_journal
from dialoop.train.tune import tune
from dialoop.types import Conversation, Message, ModelRef
from tests.tiny import tiny_model
from tests.train.drill import DIALOGUES, PREFERENCES, recipe

CHOSEN = recipe(train__epochs=4.0, train__max_length=64, train__validations=3, train__eval_every=0)
LONG = Conversation((Message("user", "Where is it? " * 60), Message("assistant", "Here.")))


def base() -> ModelRef:
    return ModelRef("tiny", tiny_model())


@pytest.fixture(scope="module")
def told() -> Estimate:
    return estimate(CHOSEN, base(), (*DIALOGUES, LONG), DIALOGUES[:2], updates=4)


def test_counts_are_those_of_the_run_itself(told: Estimate, tmp_path: Path) -> None:
    tuned = tune(CHOSEN, base(), (*DIALOGUES, LONG), DIALOGUES[:2], tmp_path)
    judged = [row for row in read_journal(tmp_path / "metrics.jsonl") if row["valid_loss"] is not None]
    assert (told.tokens, told.steps) == (tuned.result.tokens, tuned.result.step)
    assert told.validations == len(judged) == 3
    assert (told.trained, told.weights) == (tuned.trained, tuned.weights)
    assert told.rows.dropped == (len(DIALOGUES),)
    assert told.supervised == 4 * told.rows.supervised
    assert told.epoch_rows == len(DIALOGUES)


@pytest.mark.parametrize("kind", ["dpo", "distill"])
def test_every_objective_is_told_of_as_it_runs(kind: str, tmp_path: Path) -> None:
    objective = {"kind": kind} if kind == "dpo" else {"kind": kind, "teacher": "big"}
    chosen = recipe(objective=objective, train__batch_tokens=256, train__epochs=2.0)
    items = PREFERENCES if kind == "dpo" else DIALOGUES
    told = estimate(chosen, base(), items, items[:2], teacher=base(), updates=2)
    tuned = tune(chosen, base(), items, items[:2], tmp_path, teacher=base())
    assert (told.tokens, told.steps) == (tuned.result.tokens, tuned.result.step)
    assert told.epoch_rows == len(items)
    sides = pieces(told.rows, base(), 2)
    assert len(sides) == (4 if kind == "dpo" else 2)


def test_time_and_memory_come_from_real_updates(told: Estimate) -> None:
    assert told.updates == 4
    assert told.seconds >= told.tokens / told.tokens_per_second > 0
    assert told.memory > sum(file.stat().st_size for file in tiny_model().glob("*.safetensors"))


def test_an_estimate_does_not_change_the_run_that_follows(told: Estimate, tmp_path: Path) -> None:
    journals = []
    for place in (tmp_path / "alone", tmp_path / "after"):
        if place.name == "after":
            estimate(CHOSEN, base(), DIALOGUES, (), updates=2)
        tune(CHOSEN, base(), DIALOGUES, (), place)
        journals.append([row["loss"] for row in read_journal(place / "metrics.jsonl")])
    assert journals[0] == journals[1]


def test_samples_are_what_the_model_reads_cut_where_learning_begins_and_ends(told: Estimate) -> None:
    tokenizer = ChatTokenizer.load(tiny_model())
    (row,) = pieces(told.rows, base(), 1)
    assert "".join(piece.text for piece in row) == tokenizer.decode(
        render(DIALOGUES[0], tokenizer).token_ids, skip_special=False
    )
    assert [piece.text for piece in row if piece.weight] == ["It ships today.<|im_end|>"]
