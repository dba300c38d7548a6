"""`report.html`: one self-contained page in English and Chinese, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from markupsafe import Markup, escape

from dialoop.evals.compare import Comparison
from dialoop.evals.difference import marked
from dialoop.evals.headline import advice, against_nearest, findings, forgotten, overall
from dialoop.evals.messages import ReportLanguage, language_name, named, say
from dialoop.evals.pages import both, filled, same_or_both
from dialoop.evals.picture import confusions
from dialoop.evals.plot import Line, interval_bar, line_chart, series
from dialoop.evals.report import Identity, Report, Row, SideBySide, Slice
from dialoop.evals.suites import task_named

SHOWN_SLICES = 14


@dataclass(frozen=True, slots=True)
class _Chart:
    title: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()


def page(report: Report, language: ReportLanguage = "en") -> str:
    """The page; `language` is what it shows first. What came from outside is escaped."""
    return filled("report.html", language, report=report, **_values(report, language), **_HELPERS)


def _values(report: Report, language: ReportLanguage) -> dict[str, Any]:
    """What the template shows of this report."""
    shown = report.slices[:SHOWN_SLICES]
    scales = {code: _scale([row.change for row in report.of(code)]) for code in report.languages}
    return {
        "title": " · ".join(filter(None, (say("title", language), report.identity.model))),
        "overall": lambda code: overall(report, code),
        "advice": lambda code: advice(report, code),
        "against_nearest": lambda code: against_nearest(report, code),
        "findings": lambda code: findings(report, code),
        "scales": {
            **scales,
            "slices": _scale([s.change for s in shown]),
            "retained": _scale([row.change for _, row in retained_rows(report)]),
        },
        "retained_rows": retained_rows(report),
        "forgotten": lambda code: forgotten(report, code),
        "costs": cost_lines(report),
        "signatures": signatures(report),
        "slices": shown,
        "side_metric": side_metric(report),
        "slices_how": both(lambda code: slices_how(report, code)),
        "more_slices": len(report.slices) - len(shown),
        "examples": (("gains", "no_gains", report.gains), ("losses", "no_losses", report.losses)),
        "charts": _charts(report),
        "confusions": confusions(report),
        "identity": identity_lines(report.identity),
    }


def _verdict(change: Comparison) -> Markup:
    """One word where the interval decided, the whole sentence where it did not."""
    if change.verdict in ("unclear", "same"):
        return both(change.words)
    return both(lambda code: say(f"short_{change.verdict}", code))


def _scale(changes: list[Comparison]) -> tuple[float, float]:
    """The ends of the interval pictures of a table, zero included: metrics from 0 to 100 share them."""
    ends = [end for c in changes if c.digits == 1 for end in (c.low, c.high) if math.isfinite(end)]
    return min([0.0, *ends]), max([0.0, *ends])


def _bar(change: Comparison, scale: tuple[float, float]) -> Markup:
    if change.digits != 1:
        return Markup("")
    return interval_bar(change.low, change.delta, change.high, scale, change.verdict)


def p_text(change: Comparison) -> str:
    """`0.012`, or `<0.001`; corrected where it is."""
    p = change.p if change.holm is None else change.holm
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def points(gain: float) -> str:
    """A gain with its sign."""
    return f"{gain:+.1f}".replace("-", "−")


def _answers(side: SideBySide) -> list[tuple[str, str]]:
    given = [("before", side.before), ("after", side.after)]
    return given if side.nearest is None else [*given, ("nearest", side.nearest)]


def _highlight(answer: str, reference: str) -> Markup:
    if not answer.strip():
        return Markup('<span class="quiet">{}</span>').format(both(lambda code: say("empty_answer", code)))
    runs = (
        Markup("<mark>{}</mark>").format(text) if hit else escape(text)
        for text, hit in marked(answer, reference)
    )
    return Markup("").join(runs)


def slice_name(part: Slice, language: ReportLanguage) -> str:
    """`intent: refund`."""
    value = language_name(part.value, language) if part.key == "language" else part.value
    colon = ": " if language == "en" else "："
    return say(f"key_{part.key}", language) + colon + value


def slices_how(report: Report, language: ReportLanguage) -> str:
    """What the slices are of."""
    keys = dict.fromkeys(part.key for part in report.slices)
    joint = ", " if language == "en" else "、"
    return say(
        "slices_how",
        language,
        metric=side_metric(report),
        keys=joint.join(say(f"key_{key}", language) for key in keys),
    )


def retained_rows(report: Report) -> list[tuple[str, Row]]:
    """(set, row) of every metric that has a good direction, on every other set."""
    return [
        (part.name, row)
        for part in report.retained
        for row in part.report.rows
        if row.change.higher_is_better is not None
    ]


def cost_lines(report: Report) -> list[tuple[str, str, str]]:
    """(key, before, after); none where either was not measured."""
    before, after = report.costs
    if before is None or after is None:
        return []
    keys = ("median_seconds", "p95_seconds", "tokens_per_second")
    lines = [(key, f"{getattr(before, key):.3g}", f"{getattr(after, key):.3g}") for key in keys]
    size, new_size = (f"{each.weight_bytes / 1e6:,.1f}" for each in (before, after))
    return [*lines, ("weight_bytes", size, new_size)]


def side_metric(report: Report) -> str:
    """What single cases are judged by."""
    return task_named(report.task).side().name


def signatures(report: Report) -> list[tuple[str, str]]:
    """Each metric's signature once, the languages named where they differ."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        found.setdefault((row.change.metric, row.change.signature), []).append(row.language)
    return [(f"{metric} ({', '.join(codes)})", signature) for (metric, signature), codes in found.items()]


def identity_lines(identity: Identity) -> list[tuple[str, str]]:
    """(key, text) of every field; `more` spread out."""
    lines: list[tuple[str, str]] = []
    for field in fields(identity):
        value = getattr(identity, field.name)
        if field.name == "more":
            lines.extend((key, str(text)) for key, text in value.items())
        elif isinstance(value, str):
            lines.append((field.name, value))
        else:
            lines.append((field.name, ", ".join(f"{key} {text}" for key, text in value.items())))
    return lines


def _charts(report: Report) -> list[_Chart]:
    rows = report.curves
    train, valid = series(rows, "loss"), series(rows, "valid_loss")
    legend = tuple(
        pair for pair, points_ in ((("", "train_loss"), train), (("second", "valid_loss"), valid)) if points_
    )
    losses = _Chart("loss", line_chart([Line("", train), Line("second", valid)], "loss"), legend)
    others = [
        _Chart(title, line_chart([Line("", series(rows, key))], title))
        for title, key in (("learning_rate", "learning_rate"), ("grad_norm", "grad_norm"))
    ]
    return [chart for chart in (losses, *others) if chart.svg]


_HELPERS: dict[str, Callable[..., Any]] = {
    "t": lambda key, **values: same_or_both(lambda code: say(key, code, **values)),
    "both": both,
    "name": lambda name: same_or_both(lambda code: named(name, code)),
    "language_name": lambda name: same_or_both(lambda code: language_name(name, code)),
    "slice_name": lambda part: same_or_both(lambda code: slice_name(part, code)),
    "verdict": _verdict,
    "bar": _bar,
    "p": p_text,
    "points": points,
    "answers": _answers,
    "highlight": _highlight,
}
