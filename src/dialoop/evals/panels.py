"""Charts of many settings at once, as inline SVG: parallel coordinates, and bars side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from dialoop.evals.plot import short, ticks

ROW, GAP, LETTER = 24, 26, 7.2
WIDE = 760


@dataclass(frozen=True, slots=True)
class Axis:
    """One field. values: of each line, None where it has none; log: numbers are drawn by their logarithm."""

    name: str
    values: tuple[float | str | None, ...]
    log: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """One measure of several things; log: lengths go by the logarithm."""

    title: str
    values: tuple[float | None, ...]
    labels: tuple[str, ...]
    log: bool = False


def parallel(axes: Sequence[Axis], ranks: Sequence[float], label: str) -> Markup:
    """A line for each setting through its value on every axis, numbers upwards, names in their order.

    ranks: of each line, from 0 (the best, drawn last and strongest) to 1.
    """
    height, top, bottom = 300, 34, 30
    places = [60 + i * (WIDE - 120) / max(1, len(axes) - 1) for i in range(len(axes))]
    parts: list[Markup] = []
    spots: list[dict[int, tuple[float, float]]] = [{} for _ in ranks]
    for axis, x in zip(axes, places, strict=True):
        shares, marks = _scale(axis)
        ends = (top, height - bottom)
        parts.append(_axis(axis.name, x, ends, marks))
        for line, share in enumerate(shares):
            if share is not None:
                spots[line][len(spots[line])] = (round(x, 1), round(ends[1] - share * (ends[1] - ends[0]), 1))
    for line in sorted(range(len(ranks)), key=lambda i: -ranks[i]):
        parts.append(_thread(list(spots[line].values()), ranks[line]))
    return svg(parts, height, label)


def _scale(axis: Axis) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Where each value lies (0 to 1), and the marks of the axis."""
    seen = [value for value in axis.values if value is not None]
    if any(isinstance(value, str) for value in seen):
        names = sorted({str(value) for value in seen})
        at = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
        return [None if v is None else at[str(v)] for v in axis.values], [(at[n], n) for n in names]
    numbers = [float(value) for value in seen]
    turn = math.log10 if axis.log and min(numbers, default=1) > 0 else float
    low, high = min(map(turn, numbers), default=0.0), max(map(turn, numbers), default=1.0)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    shares = [None if v is None else (turn(float(v)) - low) / (high - low) for v in axis.values]
    back = [(i / 4, low + i / 4 * (high - low)) for i in range(5)]
    marks = [(share, 10**value if turn is math.log10 else value) for share, value in back]
    return shares, [(share, short(float(f"{value:.3g}"))) for share, value in marks]


def _axis(name: str, x: float, ends: tuple[float, float], marks: Sequence[tuple[float, str]]) -> Markup:
    parts = [
        Markup('<line class="rule" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(round(x, 1), *ends),
        Markup('<text class="tick mid strong" x="{}" y="16">{}</text>').format(round(x, 1), name),
    ]
    for share, text in marks:
        y = round(ends[1] - share * (ends[1] - ends[0]) + 4, 1)
        parts.append(Markup('<text class="tick" x="{}" y="{}">{}</text>').format(round(x + 5, 1), y, text))
    return Markup("").join(parts)


def _thread(spots: Sequence[tuple[float, float]], rank: float) -> Markup:
    kind = "line best" if rank == 0 else "line"
    opacity = round(1 - 0.85 * rank, 2)
    points = " ".join(f"{x},{y}" for x, y in spots)
    return Markup('<polyline class="{}" stroke-opacity="{}" points="{}"/>').format(kind, opacity, points)


def bars(names: Sequence[str], panels: Sequence[Bars], label: str) -> Markup:
    """A row for each name and a column of bars for each measure, its value written beside."""
    left = 16 + LETTER * max(map(len, names), default=0)
    width = (WIDE - left - GAP * len(panels)) / max(1, len(panels))
    parts = [
        Markup('<text class="tick end" x="{}" y="{}">{}</text>').format(
            round(left - 8, 1), _row(i) + 15, name
        )
        for i, name in enumerate(names)
    ]
    for number, panel in enumerate(panels):
        x = left + number * (width + GAP)
        parts.append(
            Markup('<text class="tick strong" x="{}" y="14">{}</text>').format(round(x, 1), panel.title)
        )
        parts += _column(panel, x, width * 0.62)
    return svg(parts, _row(len(names)) + 8, label)


def _column(panel: Bars, x: float, width: float) -> list[Markup]:
    known = [value for value in panel.values if value is not None and value > 0]
    most, least = max(known, default=1.0), min(known, default=1.0)
    parts = []
    for i, (value, text) in enumerate(zip(panel.values, panel.labels, strict=True)):
        length = 0.0
        if value is not None and value > 0:
            span = math.log10(most / least) + 1
            length = width * ((math.log10(value / least) + 1) / span if panel.log else value / most)
        parts.append(
            Markup('<rect class="bar-fill" x="{}" y="{}" width="{}" height="14" rx="2"/>').format(
                round(x, 1), _row(i) + 4, round(max(length, 0.5), 1)
            )
        )
        at = round(x + length + 5, 1)
        parts.append(Markup('<text class="tick" x="{}" y="{}">{}</text>').format(at, _row(i) + 15, text))
    return parts


def _row(number: int) -> int:
    return 22 + ROW * number


def axis_of(
    low: float, high: float, left: float, right: float
) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies between `left` and `right`, and round values from at or below `low` to above."""
    marks = ticks(low, high, 7)
    first, last = marks[0], marks[-1]

    def place(value: float) -> float:
        return round(left + (right - left) * (value - first) / (last - first), 1)

    return place, marks


def svg(parts: Sequence[Markup], height: float, label: str, *, width: float = WIDE) -> Markup:
    """The parts as one chart."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, escape(label), Markup("").join(parts)
    )
