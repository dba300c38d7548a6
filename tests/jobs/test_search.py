"""Searches: what is varied, stopped, taken up again, shared by workers, and written."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dialoop.config import TuneRecipe, load_recipe, validate
from dialoop.errors import ConfigError, DataError, TrainError
from dialoop.jobs.search import Searched, run_search
from dialoop.jobs.search_report import write_search
from dialoop.jobs.shootout import METHODS, contestants, lineup, shootout
from dialoop.store.registry import Store
from dialoop.train.search import Search, Tried
from tests.tiny import tiny_model
from tests.train.drill import ANSWERS

SPACE = {
    "method.kind": {"kind": "choice", "of": ["lora", "bitfit"]},
    "method.rank": {"kind": "int", "low": 2, "high": 4, "when": {"method.kind": "lora"}},
    "optim.learning_rate": {"kind": "float", "low": 1e-4, "high": 3e-2, "log": True},
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Forty short dialogues in twenty groups."""
    path = tmp_path / "rows.jsonl"
    pairs = [(q, a) for q, a in ANSWERS.items() for _ in range(7)][:40]
    lines = [
        {
            "messages": [{"role": "user", "content": f"{q} {i}"}, {"role": "assistant", "content": a}],
            "metadata": {"scenario": f"s{i // 2}"},
        }
        for i, (q, a) in enumerate(pairs)
    ]
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return path


def recipe(rows: Path, **search: Any) -> TuneRecipe:
    table = {
        "name": "shop",
        "base": str(tiny_model()),
        "data": {
            "sources": [str(rows)], "clean": {"steps": ["roles"]}, "split": {"valid": 0.2, "test": 0.0}
        },
        "train": {"epochs": 1.0, "batch_tokens": 128, "patience": 0},
        "search": {"space": SPACE, "trials": 6, "startup": 3, "validations": 4, **search},
    }  # fmt: skip
    return validate(TuneRecipe, table, "recipe")


def searched(recipe: TuneRecipe, tmp_path: Path, **how: Any) -> Searched:
    return run_search(recipe, tmp_path / "home", tmp_path / "search", **how)


def told(found: Searched) -> list[tuple[Any, ...]]:
    return [(each.number, each.outcome, dict(each.values), each.loss, each.curve) for each in found.trials]


def test_a_search_keeps_to_its_space_and_budget_and_writes_the_best(rows: Path, tmp_path: Path) -> None:
    seen: list[Tried] = []
    found = searched(recipe(rows), tmp_path, on_trial=seen.append)
    assert [each.number for each in seen] == [each.number for each in found.trials] == list(range(6))
    assert {each.values["method.kind"] for each in seen} <= {"lora", "bitfit"}
    assert all(("method.rank" in each.values) == (each.values["method.kind"] == "lora") for each in seen)
    assert all(1e-4 <= each.values["optim.learning_rate"] <= 3e-2 for each in seen)
    assert any(each.outcome == "stopped" and len(each.curve) < 4 for each in seen)
    assert found.best is not None
    assert found.recipe is not None
    best = load_recipe(found.recipe, TuneRecipe)
    assert best.optim.learning_rate == found.best.values["optim.learning_rate"]
    assert best.search is None
    whole = [each for each in seen if each.outcome == "completed"]
    assert found.best.loss == min(each.loss for each in whole if each.loss is not None)
    with Store.open(tmp_path / "home") as store:
        (run,) = store.runs.list()
    assert (run.kind, run.status, run.metrics["best"]["trial"]) == ("search", "completed", found.best.number)


def test_one_worker_finds_the_same_again_and_goes_on_where_it_was(rows: Path, tmp_path: Path) -> None:
    whole = searched(recipe(rows, trials=4), tmp_path)
    searched(recipe(rows, trials=2), tmp_path / "parts")
    assert told(searched(recipe(rows, trials=4), tmp_path / "parts")) == told(whole)


def test_a_trial_that_was_left_is_taken_up_with_its_values_and_checkpoint(rows: Path, tmp_path: Path) -> None:
    chosen = recipe(rows, trials=1)
    with Search(chosen, tmp_path / "search") as search:
        left = search.ask()  # as a process that is killed leaves it
    assert left is not None
    (tmp_path / "search/trials/0000").mkdir(parents=True)
    found = searched(chosen, tmp_path)
    assert [dict(each.values) for each in found.trials] == [left.user_attrs["values"]]
    assert [path.name for path in (tmp_path / "search/trials").iterdir()] == ["0000"]


def test_what_a_model_is_to_learn_and_from_whom_can_be_searched(rows: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [
        {"prompt": f"{q} {i}", "chosen": a, "rejected": "No."} for q, a in ANSWERS.items() for i in range(6)
    ]
    pairs.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    objectives = [{"kind": "dpo"}, {"kind": "distill", "teacher": str(tiny_model())}]
    space = {"objective": {"kind": "choice", "of": objectives}}
    chosen = recipe(pairs, space=space, trials=4, startup=4, pruner="none")
    found = searched(chosen, tmp_path)
    assert {each.outcome for each in found.trials} == {"completed"}
    assert {each.values["objective"]["kind"] for each in found.trials} == {"dpo", "distill"}
    assert "objective changes the loss" in write_search(found, chosen).markdown.read_text(encoding="utf-8")


def test_workers_share_one_budget(rows: Path, tmp_path: Path) -> None:
    seen: list[Tried] = []
    found = searched(recipe(rows, trials=3, pruner="none"), tmp_path, workers=2, on_trial=seen.append)
    assert sorted(each.number for each in seen) == [each.number for each in found.trials] == [0, 1, 2]
    assert {each.outcome for each in found.trials} == {"completed"}


def test_a_trial_that_cannot_be_trained_is_told_and_the_others_go_on(rows: Path, tmp_path: Path) -> None:
    space = {"optim.learning_rate": {"kind": "choice", "of": [1e30, 1e-3]}, "optim.warmup": {
        "kind": "choice", "of": [0.0, 0.01]}}  # fmt: skip
    found = searched(recipe(rows, space=space, trials=5, startup=5, pruner="none"), tmp_path)
    failed = [each for each in found.trials if each.outcome == "failed"]
    assert failed
    assert all(each.values["optim.learning_rate"] == 1e30 and each.error for each in failed)
    assert found.best is not None
    assert found.best.values["optim.learning_rate"] == 1e-3


def test_the_report_shows_every_trial_and_what_mattered(rows: Path, tmp_path: Path) -> None:
    chosen = recipe(rows, pruner="none", trials=5)
    written = write_search(searched(chosen, tmp_path), chosen)
    page, markdown = (path.read_text(encoding="utf-8") for path in (written.html, written.markdown))
    for field in SPACE:
        assert field in page
        assert f"`{field}`" in markdown
    assert "最佳配方" in page
    assert "<polyline" in page
    assert "script" not in page
    block = markdown.split("```toml\n")[1].split("```")[0]
    assert tomllib.loads(block)["optim"].keys() == {"learning_rate"}
    assert written.png is not None
    assert written.png.read_bytes().startswith(b"\x89PNG")


def test_a_shootout_tries_five_methods_at_each_of_their_rates(rows: Path, tmp_path: Path) -> None:
    chosen = shootout(recipe(rows))
    assert chosen.search is not None
    assert chosen.search.trials == len(lineup()) == 15
    two = chosen.model_copy(update={"search": chosen.search.model_copy(update={"trials": 2})})
    found = searched(two, tmp_path, lineup=lineup(), alone=True)
    full, lora = (each.best for each in contestants(found.trials)[:2])
    assert full is not None
    assert lora is not None
    assert full.trained == full.weights > lora.trained > 0
    assert full.memory > 0
    assert full.tokens > 0
    written = write_search(found, two, sides=True)
    markdown = written.markdown.read_text(encoding="utf-8")
    assert all(f"| {name} |" in markdown for name in METHODS)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"space": {"optim.learning_rat": SPACE["optim.learning_rate"]}}, "did you mean 'learning_rate'"),
        ({"space": {"name": {"kind": "choice", "of": ["a", "b"]}}}, "the same in every trial"),
        ({"space": {"method.rank": SPACE["method.rank"]}}, "no field before it"),
        ({"space": {"train.seed": {"kind": "int", "low": 3, "high": 3}}}, "swap or widen"),
        ({"space": {"optim.clip": {"kind": "float", "low": 0, "high": 3, "log": True}}}, "no logarithm"),
    ],
)
def test_a_space_that_cannot_be_is_refused(
    rows: Path, tmp_path: Path, search: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        searched(recipe(rows, **search), tmp_path)


def test_a_directory_of_another_search_is_refused_and_another_budget_is_not(
    rows: Path, tmp_path: Path
) -> None:
    with Search(recipe(rows), tmp_path) as search:
        assert not search.spent()
    with Search(recipe(rows, trials=1, pruner="none"), tmp_path) as search:
        assert search.settings.trials == 1
    other = {"space": {"train.seed": {"kind": "int", "low": 0, "high": 9}}}
    with pytest.raises(TrainError, match="search of another recipe or space"):
        Search(recipe(rows, **other), tmp_path)


def test_values_that_do_not_go_together_are_named(rows: Path, tmp_path: Path) -> None:
    space = {"method.size": {"kind": "int", "low": 8, "high": 16}}
    with pytest.raises(ConfigError, match=r"shop with method.size = \d+: unknown key 'method.lora.size'"):
        searched(recipe(rows, space=space), tmp_path)


def test_a_search_needs_rows_to_validate_on(rows: Path, tmp_path: Path) -> None:
    chosen = recipe(rows)
    data = chosen.data.model_copy(update={"split": chosen.data.split.model_copy(update={"valid": 0.0})})
    with pytest.raises(DataError, match=r"0 to validate on: .*data\.split\.valid"):
        searched(chosen.model_copy(update={"data": data}), tmp_path)
