"""A learnt prompt, from its training to its place beside prompts of words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dialoop.cli.app import app
from dialoop.config import EvalSettings, TuneRecipe
from dialoop.errors import ConfigError, DialoopError
from dialoop.jobs.matrix import Crossing, cross
from dialoop.jobs.tuning import run_tuning
from dialoop.jobs.wording import wording
from dialoop.store.registry import Store
from tests.jobs.test_tuning import Notes
from tests.tiny import make_tiny_model, tiny_model

WORDS = '[variables.text]\nfrom = "last"\n[wording.en]\nsystem = "Even or odd?"\nuser = "{{ text }}"\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a registered soft prompt, `learnt@1`, and labelled rows."""
    home = tmp_path_factory.mktemp("home")
    rows = [{"text": f"parcel {i}?", "label": "even" if i % 2 == 0 else "odd"} for i in range(40)]
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (home / "plain.toml").write_text(f'name = "plain"\n{WORDS}', encoding="utf-8")
    (home / "soft.toml").write_text(f'name = "soft"\nsoft = "learnt@1"\n{WORDS}', encoding="utf-8")
    run(home, "prompts", "add", str(home / "plain.toml"))
    recipe = TuneRecipe.model_validate({
        "name": "learnt", "base": str(tiny_model()), "method": {"kind": "prompt", "tokens": 4},
        "data": {"sources": [f"file:{home}/rows.jsonl"], "clean": {"steps": ["unicode"]},
                 "split": {"valid": 0.1, "test": 0.2}, "prompt": "plain"},
        "optim": {"learning_rate": 0.1}, "train": {"epochs": 2, "batch_tokens": 512, "patience": 0},
        "eval": {"max_cases": 4, "max_tokens": 2, "resamples": 100},
    })  # fmt: skip
    made = run_tuning(recipe, home, home / "runs/learnt", "dialoop tune", Notes())
    assert made.version is not None
    assert (made.version.ref, made.version.kind, made.version.prompt) == ("learnt@1", "prompt", "plain@1")
    run(home, "prompts", "add", str(home / "soft.toml"))
    return home


def run(home: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["--home", str(home), *words])
    if isinstance(done.exception, DialoopError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_learnt_prompt_stands_beside_one_of_words_and_is_answered_by_its_own_model(home: Path) -> None:
    out = home / "out"
    run(
        home, "matrix", str(home / "rows.jsonl"), "--model", str(tiny_model()), "--prompt", "plain",
        "--prompt", "soft", "--task", "classification", "--no-speed", "--max-cases", "8", "--out", str(out),
    )  # fmt: skip
    sides = json.loads((out / "matrix.json").read_text(encoding="utf-8"))["sides"]
    assert [side["prompt"] for side in sides] == ["plain@1", "soft@1"]
    assert sides[1]["model"] == "learnt@1"
    assert sides[0]["model"] != "learnt@1"

    def scores(model: str, prompt: str) -> Any:
        with Store.open(home) as store:
            worded = wording(prompt, store.prompts.get(prompt).settings, {})
        asked = Crossing(
            (model,), (worded,), (f"file:{home}/rows.jsonl",), EvalSettings(max_cases=8), "classification",
            speed=False,
        )  # fmt: skip
        (side,) = cross(asked, home, lambda what, done, total: None).sides
        return [outcome.scores for outcome in side.outcomes]

    assert scores(str(tiny_model()), "soft@1") == scores("learnt", "plain@1")
    assert scores(str(tiny_model()), "soft@1") == scores("learnt@1", "soft@1")
    assert scores(str(tiny_model()), "soft@1") != scores(str(tiny_model()), "plain@1")


def test_a_learnt_prompt_is_measured_by_prompts_eval_too(home: Path) -> None:
    words = ["prompts", "eval", str(tiny_model()), "soft", str(home / "rows.jsonl"), "--max-cases", "6"]
    assert "accuracy" in run(home, *words)


def test_a_learnt_prompt_goes_before_no_other_base(home: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3)
    words = ["matrix", str(home / "rows.jsonl"), "--model", str(other), "--prompt", "soft", "--no-speed"]
    with pytest.raises(ConfigError, match=r"prompt soft@1 opens learnt@1, which .* is not the base of"):
        run(home, *words, "--task", "classification")
