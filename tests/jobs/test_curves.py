"""The course of a run as page, picture and points for the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dialoop.cli.app import app
from dialoop.cli.curve import braille
from dialoop.errors import TrainError
from dialoop.jobs.curves import MOST, stored_curve, write_curves


def journal(folder: Path, updates: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": n, "loss": 5 / n, "learning_rate": 0.1, "grad_norm": float("nan") if n == 2 else 1.0,
         "tokens_per_second": 100.0, "valid_loss": 4 / n if n % 50 == 0 else None}
        for n in range(1, updates + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_a_run_is_drawn_as_a_page_and_a_picture(tmp_path: Path) -> None:
    made = write_curves(journal(tmp_path, 120), "shop & co")
    assert made is not None
    page = made.html.read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert "shop &amp; co" in page
    assert made.png.read_bytes().startswith(b"\x89PNG")


def test_the_store_keeps_few_points_and_every_validation(tmp_path: Path) -> None:
    kept = stored_curve(journal(tmp_path, 1000))
    assert len(kept) <= MOST + 20
    assert [row["step"] for row in kept if row["valid_loss"] is not None] == list(range(50, 1001, 50))
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept


def test_the_command_draws_a_run_of_the_home_by_its_name(tmp_path: Path) -> None:
    journal(tmp_path / "runs/shop", 30)
    done = CliRunner().invoke(app, ["--home", str(tmp_path), "curve", "shop"])
    assert done.stdout.split() == [str(tmp_path / "runs/shop" / name) for name in ("curve.html", "curve.png")]


def test_a_run_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    journal(tmp_path / "runs/shop", 3)
    with pytest.raises(TrainError, match="did you mean 'shop'"):
        CliRunner().invoke(app, ["--home", str(tmp_path), "curve", "shpo"], catch_exceptions=False)


def test_a_terminal_curve_falls_from_the_top_to_the_bottom() -> None:
    lines = braille([3.0, float("nan"), 2.0, 1.0], width=4, height=2)
    assert len(lines) == 2
    assert {len(line) for line in lines} == {4}
    assert lines[0][0] != "⠀" == lines[0][1]
    assert lines[1][1] != "⠀"
    assert braille([], 4, 2) == []
