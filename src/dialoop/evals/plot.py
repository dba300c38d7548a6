"""Charts as inline SVG: no script, no image file; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 30
MOST_POINTS = 1500


@dataclass(frozen=True, slots=True)
class Line:
    """A named curve; `kind` is its CSS class."""

    kind: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Maps data to pixels."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )


def series(rows: Sequence[Mapping[str, float | None]], key: str) -> tuple[tuple[float, float], ...]:
    """(step, value) of the rows with a finite `key`, in order of steps."""
    pairs = [(row.get("step"), row.get(key)) for row in rows]
    found = [(float(step), float(value)) for step, value in pairs if step is not None and value is not None]
    return tuple(sorted(point for point in found if all(map(math.isfinite, point))))


def line_chart(lines: Sequence[Line], label: str) -> Markup:
    """An `svg` of lines over one pair of axes with round ticks; empty for lines without points."""
    drawn = [Line(line.kind, _thinned(line.points)) for line in lines if line.points]
    if not drawn:
        return Markup("")
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys), 5)
    frame = _Frame(_span(min(xs), max(xs)), _span(min(*ys, y_ticks[0]), max(*ys, y_ticks[-1])))
    inside = [*_grid(frame, x_ticks, y_ticks), *(_path(frame, line) for line in drawn)]
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, escape(label), Markup("").join(inside)
    )


def _thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most MOST_POINTS of them, evenly, the last included."""
    step = max(1, math.ceil(len(points) / MOST_POINTS))
    kept = tuple(points[::step])
    return kept if kept[-1] == points[-1] else (*kept, points[-1])


def _span(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `wanted` of them."""
    low, high = _span(low, high)
    raw = (high - low) / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _grid(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[Markup]:
    parts = []
    for y in y_ticks:
        _, at = frame.at(frame.x[0], y)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, at, at)
        )
        parts.append(
            Markup('<text class="tick end" x="{}" y="{}">{}</text>').format(LEFT - 8, at + 4, short(y))
        )
    for x in x_ticks:
        if frame.x[0] <= x <= frame.x[1]:
            at, _ = frame.at(x, frame.y[0])
            parts.append(
                Markup('<text class="tick mid" x="{}" y="{}">{}</text>').format(
                    at, HEIGHT - BOTTOM + 18, short(x)
                )
            )
    return parts


def _path(frame: _Frame, line: Line) -> Markup:
    spots = [frame.at(x, y) for x, y in line.points]
    if len(spots) == 1:
        return Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(line.kind, *spots[0])
    return Markup('<polyline class="line {}" points="{}"/>').format(
        line.kind, " ".join(f"{x},{y}" for x, y in spots)
    )


def short(value: float) -> str:
    """A tick's label: at most four significant digits, `4e-4` for the small."""
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "−")
    return f"{value:,.4g}".replace("-", "−")


def interval_bar(low: float, middle: float, high: float, ends: tuple[float, float], kind: str) -> Markup:
    """A small interval around its value on a scale between `ends`, zero marked; empty for NaN."""
    if not all(map(math.isfinite, (low, middle, high))) or ends[1] <= ends[0]:
        return Markup("")
    width = ends[1] - ends[0]
    spots = (
        round(6 + 108 * (min(max(v, ends[0]), ends[1]) - ends[0]) / width, 1) for v in (0, low, high, middle)
    )
    zero, left, right, dot = spots
    return Markup(
        '<svg class="bar {}" viewBox="0 0 120 16" aria-hidden="true">'
        '<line class="zero" x1="{}" x2="{}" y1="0" y2="16"/>'
        '<line class="range" x1="{}" x2="{}" y1="8" y2="8"/><circle cx="{}" cy="8" r="3.2"/></svg>'
    ).format(kind, zero, zero, left, right, dot)
