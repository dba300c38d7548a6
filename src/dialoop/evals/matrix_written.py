"""The matrix on the terminal, as a page and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dialoop.evals.matrix import CHOSEN, Cell, Column, Matrix, Side, without_outcomes
from dialoop.evals.messages import REPORT_LANGUAGES, ReportLanguage, language_name, named, say
from dialoop.evals.pages import both, filled, same_or_both
from dialoop.evals.plot import interval_bar
from dialoop.evals.scores import Score
from dialoop.evals.written import plain

SCHEMA = "dialoop.matrix/1"
_MARKS = {"best": "[green]*[/green]", "even": "=", "behind": "[red]-[/red]"}


@dataclass(frozen=True, slots=True)
class Written:
    """Paths of the two files."""

    html: Path
    json: Path


def headline(matrix: Matrix, language: ReportLanguage = "en") -> str:
    """Which sides are best, or not told from the best, in every column."""
    chosen = [column for column in matrix.columns if column.metric in CHOSEN]
    if matrix.chance is not None and all(matrix.by_chance(cell) for c in chosen for cell in c.cells):
        return say("matrix_blind", language, cases=matrix.cases, chance=f"{matrix.chance:.1f}")
    good = [
        side.name
        for i, side in enumerate(matrix.sides)
        if all(column.cells[i].standing != "behind" for column in matrix.columns)
    ]
    leading = [
        side.name
        for i, side in enumerate(matrix.sides)
        if all(column.cells[i].standing == "best" for column in matrix.columns)
    ]
    stop = ", " if language == "en" else "，"
    if leading and good == leading:
        return say("matrix_best", language, side=leading[0], cases=matrix.cases)
    if good:
        return say("matrix_even", language, sides=stop.join(good), cases=matrix.cases)
    return say("matrix_mixed", language, cases=matrix.cases)


def show(matrix: Matrix, console: Console, language: ReportLanguage = "en") -> None:
    """Print it; * is a column's best, = is not told from it, - is behind it."""
    console.print(escape(headline(matrix, language)), style="bold", highlight=False)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column(say("prompt", language))
    shown.add_column(say("side_model", language))
    for column in matrix.columns:
        title = f"{named(column.metric, language)}, {language_name(column.language, language)}"
        shown.add_column(title, justify="right")
    for key in ("prompt_tokens", "median_seconds"):
        shown.add_column(say(key, language), justify="right")
    for i, side in enumerate(matrix.sides):
        cells = [_cell(matrix, column.cells[i]) for column in matrix.columns]
        shown.add_row(escape(side.prompt), escape(side.model), *cells, *costs(side)[:2])
    console.print(shown)
    console.print(say("matrix_marks", language), style="dim", highlight=False)
    if matrix.chance is not None:
        told = say("matrix_chance", language, chance=f"{matrix.chance:.1f}")
        console.print(told, style="dim", highlight=False)
    if matrix.shortened:
        told = say("shortened", language, shortened=matrix.shortened, cases=matrix.cases)
        console.print(told, style="dim", highlight=False)


def _cell(matrix: Matrix, cell: Cell) -> str:
    mark = "~" if matrix.by_chance(cell) else _MARKS[cell.standing]
    return f"{number(cell.score)} {escape(cell.score.interval)} {mark}"


def number(score: Score) -> str:
    """With the metric's digits."""
    return "–" if math.isnan(score.value) else f"{score.value:.{score.digits}f}"


def costs(side: Side) -> tuple[str, str, str, str]:
    """Prompt tokens, median and high seconds of an answer, megabytes; a dash for what is not known."""
    tokens = "–" if side.tokens is None else f"{side.tokens:.0f}"
    if side.cost is None:
        return tokens, "–", "–", "–"
    cost = side.cost
    size = f"{cost.weight_bytes / 1e6:,.1f}"
    return tokens, f"{cost.median_seconds:.3g}", f"{cost.p95_seconds:.3g}", size


def write(matrix: Matrix, folder: Path, command: str = "") -> Written:
    """Write `matrix.html` and `matrix.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = Written(folder / "matrix.html", folder / "matrix.json")
    told = {
        "schema": SCHEMA, "command": command,
        "headline": {code: headline(matrix, code) for code in REPORT_LANGUAGES},
        **plain(without_outcomes(matrix)),
    }  # fmt: skip
    text = json.dumps(told, ensure_ascii=False, allow_nan=False, indent=1)
    paths.json.write_text(text, encoding="utf-8")
    paths.html.write_text(page(matrix, command), encoding="utf-8")
    return paths


def page(matrix: Matrix, command: str = "", language: ReportLanguage = "en") -> str:
    """The page in both languages; `language` is what it shows first."""
    return filled(
        "matrix.html", language, matrix=matrix, command=command, number=number, costs=costs,
        headline=both(lambda code: headline(matrix, code)), bar=_bar,
        languages=list(dict.fromkeys(column.language for column in matrix.columns)),
        columns=lambda code: [column for column in matrix.columns if column.language == code],
        side_index=lambda side: next(i for i, each in enumerate(matrix.sides) if each is side),
        t=lambda key, **values: same_or_both(lambda code: say(key, code, **values)),
        name=lambda metric: same_or_both(lambda code: named(metric, code)),
        language_name=lambda name: same_or_both(lambda code: language_name(name, code)),
    )  # fmt: skip


def _bar(cell: Cell, column: Column) -> Markup:
    ends = [end for each in column.cells for end in (each.score.low, each.score.high) if math.isfinite(end)]
    scale = (min([0.0, *ends]), max([0.0, *ends]))
    kind = {"best": "better", "behind": "worse", "even": "unclear"}[cell.standing]
    return interval_bar(cell.score.low, cell.score.value, cell.score.high, scale, kind)
