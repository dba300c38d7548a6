"""The report on disk and on the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dialoop.evals.headline import findings, headline
from dialoop.evals.html import p_text, page
from dialoop.evals.markdown import markdown
from dialoop.evals.messages import REPORT_LANGUAGES, ReportLanguage, language_name, named, say
from dialoop.evals.picture import confusions, forest
from dialoop.evals.png import write_png
from dialoop.evals.report import Report, Row

SCHEMA = "dialoop.report/1"
_COLUMNS = ("metric", "before", "after", "nearest", "delta", "interval", "p", "n", "verdict")
_ROOMY = 100
_COLOURS = {"better": "green", "worse": "red"}


@dataclass(frozen=True, slots=True)
class Written:
    """Paths of the four files."""

    html: Path
    json: Path
    markdown: Path
    png: Path


def write(report: Report, folder: Path, language: ReportLanguage = "en") -> Written:
    """Write `report.html` (both languages, `language` first), `.json`, `.md` and `.png`; of a classification
    also `confusion-before.png` and `confusion-after.png`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = Written(*(folder / f"report.{ending}" for ending in ("html", "json", "md", "png")))
    text = json.dumps(as_json(report), ensure_ascii=False, allow_nan=False, indent=1)
    contents = (
        (paths.html, page(report, language)),
        (paths.json, text),
        (paths.markdown, markdown(report, language)),
    )
    for path, content in contents:
        path.write_text(content, encoding="utf-8")
    write_png([forest(report)], paths.png)
    if found := confusions(report):
        for side, picture in zip(("before", "after"), found, strict=True):
            write_png([picture], folder / f"confusion-{side}.png")
    return paths


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON values; what is not a finite number is null."""
    found = {
        "schema": SCHEMA,
        "headline": {code: headline(report, code) for code in REPORT_LANGUAGES},
        "findings": {code: findings(report, code) for code in REPORT_LANGUAGES},
    }
    return {**plain(found), **plain(report)}


def plain(value: Any) -> Any:
    """As JSON values; what is not a finite number is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def table(report: Report, console: Console, language: ReportLanguage = "en") -> None:
    """Print the headline and the metrics with intervals; change, p and n only where there is room."""
    console.print(escape(headline(report, language)), style="bold", highlight=False)
    left_out = {*(() if console.width >= _ROOMY else ("delta", "p", "n"))}
    left_out |= set() if any(row.nearest for row in report.rows) else {"nearest"}
    keys = [key for key in _COLUMNS if key not in left_out]
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key in keys:
        left = key in ("metric", "verdict")
        title = say("nearest_short" if key == "nearest" else key, language)
        shown.add_column(title, justify="left" if left else "right", no_wrap=True)
    for code in report.languages:
        shown.add_row(escape(language_name(code, language)), style="bold")
        for row in report.of(code):
            cells = _cells(row, language)
            shown.add_row(*(cells[key] for key in keys))
        shown.add_section()
    console.print(shown)


def _cells(row: Row, language: ReportLanguage) -> dict[str, str]:
    """The row's cells by column."""
    change = row.change
    colour = _COLOURS.get(change.verdict, "dim")
    verdict = say(f"short_{change.verdict}", language)
    return {
        "metric": f"  {named(change.metric, language)}",
        "before": change.number(change.before),
        "after": change.number(change.after),
        "nearest": change.number(row.nearest.before) if row.nearest else "",
        "delta": change.signed(change.delta),
        "interval": escape(change.interval),
        "p": p_text(change),
        "n": str(change.cases),
        "verdict": f"[{colour}]{escape(verdict)}[/{colour}]",
    }
