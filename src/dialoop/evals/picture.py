"""Pictures as PNG: changes with their intervals, and which label was taken for which."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dialoop.evals.messages import language_name, named
from dialoop.evals.words import is_han

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dialoop.evals.labels import Confusion
    from dialoop.evals.report import Report, Row

COLOURS = {"better": "#1a7f37", "worse": "#cf222e"}
OTHER_COLOUR = "#6e7781"
DOTS_PER_INCH = 150
MOST_LABELS = 40
_CHINESE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Microsoft YaHei", "PingFang SC", "SimHei", "Droid Sans Fallback",
)  # fmt: skip


def forest(report: Report) -> bytes:
    """Each metric's change with its 95 % interval, in points, by set and language; green is better."""
    from matplotlib.figure import Figure

    rows = [("", row) for row in report.rows] + [
        (f"{part.name}: ", row) for part in report.retained for row in part.report.rows
    ]
    shown = [(of, row) for of, row in rows if row.change.digits == 1 and row.change.low == row.change.low]
    figure = Figure(figsize=(8, 1.2 + 0.28 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=OTHER_COLOUR, linewidth=0.8)
    for place, (_, row) in enumerate(shown):
        _interval(axes, place, row)
    labels, font = _written([_label(of, row) for of, row in shown])
    axes.set_yticks(range(len(shown)), labels, fontfamily=font, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("change in points, 95 % interval")
    return _png(figure)


def _label(of: str, row: Row) -> str:
    return f"{of}{named(row.change.metric, 'en')}, {language_name(row.language, 'en')}"


def _interval(axes: object, place: int, row: Row) -> None:
    change, colour = row.change, COLOURS.get(row.change.verdict, OTHER_COLOUR)
    axes.plot([change.low, change.high], [place, place], color=colour, linewidth=2)  # type: ignore[attr-defined]
    axes.plot([change.delta], [place], "o", color=colour, markersize=5)  # type: ignore[attr-defined]


def confusion_picture(confusion: Confusion) -> bytes:
    """Rows: what was right; columns: what was said; shades: shares of the row."""
    from matplotlib.figure import Figure

    kept = confusion.largest(MOST_LABELS)
    size = max(4.0, 1.5 + 0.32 * len(kept.labels))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(kept.shares, cmap="Blues", vmin=0, vmax=1)
    labels, font = _written(kept.labels)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=90, fontfamily=font, parse_math=False)
    axes.set_yticks(places, labels, fontfamily=font, parse_math=False)
    axes.set_xlabel("said")
    axes.set_ylabel("right")
    for row in places:
        for column in places:
            if count := int(kept.counts[row, column]):
                shade = "white" if kept.shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=7)
    return _png(figure)


def _written(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """The labels and the fonts that hold them; numbers for Chinese ones where no such font is installed."""
    from matplotlib import font_manager

    installed = set(font_manager.fontManager.get_font_names())
    chinese = [name for name in _CHINESE_FONTS if name in installed][:1]
    plain = [
        label if chinese or not any(map(is_han, label)) else f"label {i + 1}"
        for i, label in enumerate(labels)
    ]
    return plain, ["DejaVu Sans", *chinese]


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DOTS_PER_INCH)
    return stream.getvalue()
