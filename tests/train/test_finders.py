"""Rates and batch sizes that a run finds for itself, once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dialoop.train import finders
from dialoop.train.finders import find_batch, find_rate, found
from dialoop.train.loop import read_journal
from dialoop.train.tune import tune
from dialoop.types import ModelRef
from tests.tiny import tiny_model
from tests.train.drill import DIALOGUES, PREFERENCES, adapter_sum, recipe


def base() -> ModelRef:
    return ModelRef("tiny", tiny_model())


def test_a_range_test_raises_the_rate_and_stays_below_the_best(tmp_path: Path) -> None:
    told = find_rate(recipe(), base(), DIALOGUES, updates=30)
    rates = [rate for rate, _ in told.tried]
    assert rates == sorted(rates)
    best = min(told.tried, key=lambda each: each[1])[0]
    assert told.learning_rate == pytest.approx(best / finders.SAFE, rel=0.06)


def test_a_rate_is_found_for_preferences_too() -> None:
    told = find_rate(recipe(objective={"kind": "dpo"}), base(), PREFERENCES, updates=20)
    assert told.tried[0][1] == pytest.approx(math.log(2), abs=1e-3)
    assert finders.LOWEST < told.learning_rate < finders.HIGHEST


def test_a_range_test_ends_where_the_loss_blows_up() -> None:
    wild = recipe(method={"kind": "full"})
    told = find_rate(wild, base(), DIALOGUES, updates=30)
    assert max(rate for rate, _ in told.tried) <= finders.HIGHEST
    assert all(loss <= finders.BLOWN_UP * min(loss for _, loss in told.tried) for _, loss in told.tried)


def test_a_batch_search_keeps_the_rows_of_an_update() -> None:
    told = find_batch(recipe(train__batch_rows=3), base(), DIALOGUES)
    assert told.batch_rows == 3
    assert next(size for size, _ in told.tried) == finders.SMALLEST_BATCH == told.batch_tokens
    lengths = 64 / find_batch(recipe(), base(), DIALOGUES).batch_rows
    assert 10 < lengths < 40


def test_what_was_found_is_taken_again_and_the_run_is_that_of_the_rate_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    chosen = found(recipe(), base(), DIALOGUES, tmp_path, rate=True, batch=True, on_note=notes.append)
    kept = json.loads((tmp_path / "found.json").read_text())
    assert chosen.optim.learning_rate == kept["rate"]["learning_rate"]
    assert chosen.train.batch_tokens == kept["batch"]["batch_tokens"]
    assert len(notes) == 2
    monkeypatch.setattr(finders, "find_rate", None)
    monkeypatch.setattr(finders, "find_batch", None)
    assert found(recipe(), base(), DIALOGUES, tmp_path, rate=True, batch=True) == chosen
    for place in (tmp_path, tmp_path / "given"):
        tune(chosen, base(), DIALOGUES, (), place)
    assert adapter_sum(tmp_path) == adapter_sum(tmp_path / "given")
    assert read_journal(tmp_path / "metrics.jsonl")[0]["step"] == 1


def test_nothing_is_searched_unasked(tmp_path: Path) -> None:
    assert found(recipe(), base(), DIALOGUES, tmp_path, rate=False, batch=False) == recipe()
    assert list(tmp_path.iterdir()) == []
