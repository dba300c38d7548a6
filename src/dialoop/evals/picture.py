"""Pictures of a report as SVG: changes with their intervals, and which label was taken for which."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from dialoop.evals.classes import Confusion, confusion
from dialoop.evals.messages import language_name, named
from dialoop.evals.panels import LETTER, WIDE, axis_of, svg
from dialoop.evals.plot import short
from dialoop.evals.report import Report, Row
from dialoop.evals.suites import task_named
from dialoop.evals.words import is_han

MOST_LABELS = 40
ROW, CELL = 20, 22


def forest(report: Report) -> Markup:
    """Each metric's change with its 95 % interval, in points, by set and language; green is better."""
    rows = [("", row) for row in report.rows] + [
        (f"{part.name}: ", row) for part in report.retained for row in part.report.rows
    ]
    shown = [(of, row) for of, row in rows if row.change.digits == 1 and row.change.low == row.change.low]
    names = [_label(of, row) for of, row in shown]
    left = 16 + max(map(_width, names), default=0.0)
    ends = [end for _, row in shown for end in (row.change.low, row.change.high, 0.0)] or [0.0]
    place, marks = axis_of(min(ends), max(ends), left, WIDE - 16)
    bottom = 8 + ROW * len(shown)
    parts = [
        Markup('<line class="{}" x1="{x}" x2="{x}" y1="4" y2="{y}"/>').format(
            "rule" if mark == 0 else "grid", x=place(mark), y=bottom
        )
        for mark in marks
    ]
    parts += [_text("tick mid", place(mark), bottom + 16, short(mark)) for mark in marks]
    parts.append(_text("tick mid strong", (left + WIDE - 16) / 2, bottom + 36, "change in points, 95 %"))
    for number, (name, (_, row)) in enumerate(zip(names, shown, strict=True)):
        y, change = 8 + ROW * number + ROW / 2, row.change
        parts.append(_text("tick end", left - 8, y + 4, name))
        parts.append(
            Markup('<line class="range {0}" x1="{1}" x2="{2}" y1="{4}" y2="{4}"/>'
                   '<circle class="spot {0}" cx="{3}" cy="{4}" r="3.4"/>').format(
                change.verdict, place(change.low), place(change.high), place(change.delta), y
            )
        )  # fmt: skip
    return svg(parts, bottom + 44, "changes with their intervals")


def _label(of: str, row: Row) -> str:
    return f"{of}{named(row.change.metric, 'en')}, {language_name(row.language, 'en')}"


def _width(text: str) -> float:
    return sum(2 * LETTER if is_han(letter) else LETTER for letter in text)


def _text(kind: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, round(x, 1), round(y, 1), text)


def confusions(report: Report) -> tuple[Markup, Markup] | None:
    """Of a classification, before and after."""
    if task_named(report.task).options != "labels":
        return None
    right = [side.case.reference for side in report.answers]
    before, after = ([side.before for side in report.answers], [side.after for side in report.answers])
    return confusion_picture(confusion(right, before)), confusion_picture(confusion(right, after))


def confusion_picture(confusion: Confusion) -> Markup:
    """Rows: what was right; columns: what was said; shades: shares of the row."""
    kept = confusion.largest(MOST_LABELS)
    left, top = 16 + max(map(_width, kept.labels), default=0.0), 26.0
    parts = [_text("tick strong", 4, 16, "right ↓ said →")]
    for row, name in enumerate(kept.labels):
        y = top + CELL * row
        parts.append(_text("tick end", left - 6, y + 15, f"{name} {row + 1}"))
        parts.append(_text("tick mid", left + CELL * (row + 0.5), top - 6, str(row + 1)))
        parts += _cells(kept.counts[row].tolist(), kept.shares[row].tolist(), left, y)
    size = CELL * len(kept.labels)
    return svg(parts, top + size + 8, "confusion matrix", width=max(left + size + 8, 160.0))


def _cells(counts: Sequence[int], shares: Sequence[float], left: float, y: float) -> list[Markup]:
    """One row, its empty cells left out."""
    parts = []
    for column, (count, share) in enumerate(zip(counts, shares, strict=True)):
        if count:
            x = round(left + CELL * column, 1)
            parts.append(
                Markup(
                    '<rect class="bar-fill" fill-opacity="{}" x="{}" y="{}" width="{w}" height="{w}"/>'
                ).format(round(0.15 + 0.85 * share, 2), x, y, w=CELL)
            )
            kind = "tick mid light" if share > 0.5 else "tick mid"
            parts.append(_text(kind, x + CELL / 2, y + 15, str(count)))
    return parts
