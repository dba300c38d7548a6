"""The course of a run as a page, a picture, and a few points for the store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dialoop.evals.plot import Line, line_chart, series
from dialoop.evals.png import style, write_png
from dialoop.train.loop import read_journal

MOST = 200
"""Points of a run that the store keeps; validations are all kept."""
STORED = ("step", "loss", "valid_loss", "learning_rate")
SHOWN = (
    ("Loss (thick: validation)", "损失（粗线：验证）", ("loss", "valid_loss")),
    ("Learning rate", "学习率", ("learning_rate",)),
    ("Gradient norm", "梯度范数", ("grad_norm",)),
    ("Tokens a second", "每秒词元数", ("tokens_per_second",)),
)


@dataclass(frozen=True, slots=True)
class Curves:
    """Paths of a run's page and picture."""

    html: Path
    png: Path


def stored_curve(folder: Path) -> list[dict[str, Any]]:
    """Step, loss, validation loss and learning rate of at most about `MOST` updates, as JSON."""
    rows = read_journal(folder / "metrics.jsonl")
    every = max(1, math.ceil(len(rows) / MOST))
    kept = [row for i, row in enumerate(rows, 1) if i % every == 0 or row["valid_loss"] is not None]
    return [
        {key: _number(row[key]) for key in ("step", "loss", "valid_loss", "learning_rate")} for row in kept
    ]


def _number(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def write_curves(folder: Path, name: str) -> Curves | None:
    """`curve.html` and `curve.png` of what `metrics.jsonl` holds so far; None where it holds no update."""
    rows = read_journal(folder / "metrics.jsonl")
    charts = [(title, chinese, _chart(rows, keys)) for title, chinese, keys in SHOWN]
    drawn = [each for each in charts if each[2]]
    if not drawn:
        return None
    made = Curves(folder / "curve.html", folder / "curve.png")
    made.html.write_text(_page(name, drawn), encoding="utf-8")
    write_png([chart for _, _, chart in drawn], made.png)
    return made


def _chart(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Markup:
    lines = [Line(kind, series(rows, key)) for kind, key in zip(("", "second"), keys, strict=False)]
    return line_chart(lines, keys[0])


def _page(name: str, charts: Sequence[tuple[str, str, Markup]]) -> str:
    figures = Markup("").join(
        Markup("<figure><figcaption>{} · {}</figcaption>{}</figure>").format(*chart) for chart in charts
    )
    return Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{0}</title>'
        '<style>{1}</style></head><body><main><h1>{0}</h1><div class="charts">{2}</div></main></body></html>'
    ).format(name, Markup(style()), figures)
