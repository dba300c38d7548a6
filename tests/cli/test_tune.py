"""`dialoop tune` looks ahead, and `dialoop search` varies: what they print and what they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dialoop.cli.app import app
from dialoop.cli.outlook import LEARNT, PARTLY, READ, coloured
from dialoop.errors import ConfigError
from dialoop.train.estimate import Piece
from tests.tiny import tiny_model

RECIPE = """
kind = "tune"
name = "shop"
base = "{base}"
[data]
sources = ["sample:en"]
limit = 60
[method]
rank = 4
[train]
epochs = 1.0
batch_tokens = 2048
max_length = 200
[search]
trials = 2
validations = 2
[search.space]
"optim.learning_rate" = {{ kind = "float", low = 1e-4, high = 1e-2, log = true }}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(RECIPE.format(base=tiny_model()), encoding="utf-8")
    return path


def test_a_dry_run_tells_what_is_to_come_and_leaves_no_run(recipe: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = CliRunner().invoke(app, ["--home", str(home), "tune", str(recipe), "--dry-run", "--samples", "1"])
    assert done.exit_code == 0, done.output
    for told in ("Tokens", "learnt", "Updates", "do not fit", "GB at most", "real updates", "Row 1"):
        assert told in done.stdout
    assert "<|im_start|>assistant" in done.stdout
    assert not (home / "runs").exists()


def test_what_is_learnt_is_coloured_and_what_is_only_read_is_dim() -> None:
    text = coloured([Piece("Hi ", 0.0), Piece("there", 1.0), Piece("!", 0.5)])
    assert text.plain == "Hi there!"
    assert [span.style for span in text.spans] == [READ, LEARNT, PARTLY]
    Console(file=None, quiet=True).print(text)


def test_what_is_of_dialogues_alone_is_refused_for_a_model_with_a_head(tmp_path: Path) -> None:
    recipe = tmp_path / "intent.toml"
    recipe.write_text('kind = "classify"\nname = "intent"\n[data]\nsources = ["x"]\n', encoding="utf-8")
    for option in ("--dry-run", "--find-lr", "--find-batch"):
        command = ["--home", str(tmp_path), "tune", str(recipe), option]
        with pytest.raises(ConfigError, match=r"intent is of kind classify, .* go with kind tune alone"):
            CliRunner().invoke(app, command, catch_exceptions=False)


def test_a_search_prints_its_trials_and_the_command_for_the_best(recipe: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = CliRunner().invoke(app, ["--home", str(home), "search", str(recipe)])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("validation loss") == 3
    best = home / "runs/shop-search/best.toml"
    assert f"dialoop tune {best}" in done.stdout
    assert (home / "runs/shop-search/search.html").is_file()


def test_a_recipe_that_varies_nothing_is_told_how_to(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text(encoding="utf-8").split("[search]")[0], encoding="utf-8")
    with pytest.raises(ConfigError, match=r"name fields in \[search.space\]"):
        CliRunner().invoke(app, ["--home", str(tmp_path), "search", str(recipe)], catch_exceptions=False)
