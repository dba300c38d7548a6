"""`report.md`: the report as plain Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dialoop.evals.compare import Comparison
from dialoop.evals.headline import findings, headline
from dialoop.evals.html import (
    cost_lines,
    identity_lines,
    p_text,
    points,
    retained_rows,
    side_metric,
    signatures,
    slice_name,
    slices_how,
)
from dialoop.evals.messages import ReportLanguage, language_name, named, say
from dialoop.evals.report import Report, SideBySide

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#|~])")


def markdown(report: Report, language: ReportLanguage = "en") -> str:
    """The whole report; text from outside is escaped so that it stays text."""
    blocks = [
        f"# {_plain(headline(report, language))}",
        "\n".join(f"- {_plain(line)}" for line in findings(report, language)),
        _plain(report.judged.words(language)) if report.judged else "",
        say(
            "counts", language, cases=report.cases, groups=report.groups, scored=report.scored,
            skipped=report.skipped,
        ),
        _shortened(report, language),
        f"## {say('metrics', language)}",
        *_metric_tables(report, language),
        say("how", language, resamples=report.resamples, seed=report.seed, groups=report.groups),
        "\n".join(f"- {_plain(label)}: `{text}`" for label, text in signatures(report)),
        *_retained(report, language),
        *_costs(report, language),
        *_slices(report, language),
        *_examples(report, language),
        f"## {say('identity', language)}",
        "\n".join(_identity(report, language)),
    ]  # fmt: skip
    return "\n\n".join(block for block in blocks if block) + "\n"


def _plain(text: str) -> str:
    """`text` on one line with what Markdown would read as its own escaped."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))


def _table(header: Sequence[str], align: str, rows: Iterable[Sequence[str]]) -> str:
    """align: a letter a column, `l` or `r`."""
    rule = ["---" if letter == "l" else "---:" for letter in align]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def _shortened(report: Report, language: ReportLanguage) -> str:
    cut = report.shortened
    return say("shortened", language, shortened=cut, cases=report.cases) if cut else ""


def _metric_tables(report: Report, language: ReportLanguage) -> list[str]:
    keys = ("metric", "before", "after", "nearest", "delta", "interval", "detectable", "p", "n", "verdict")
    header = [say(k, language) for k in keys]
    blocks = []
    for code in report.languages:
        rows = [
            [
                named(row.change.metric, language), *_values(row.change),
                row.change.number(row.nearest.before) if row.nearest else "",
                row.change.signed(row.change.delta), row.change.interval,
                row.change.number(row.change.detectable), _plain(p_text(row.change)),
                str(row.change.cases), row.change.words(language),
            ]
            for row in report.of(code)
        ]  # fmt: skip
        blocks += [f"### {_plain(language_name(code, language))}", _table(header, "lrrrrrrrrl", rows)]
    return blocks


def _values(change: Comparison) -> tuple[str, str]:
    return change.number(change.before), change.number(change.after)


def _retained(report: Report, language: ReportLanguage) -> list[str]:
    if not report.retained:
        return []
    keys = ("set", "metric", "before", "after", "delta", "interval", "n", "verdict")
    rows = [
        [
            _plain(f"{name} · {language_name(row.language, language)}"), named(row.change.metric, language),
            *_values(row.change), row.change.signed(row.change.delta), row.change.interval,
            str(row.change.cases), row.change.words(language),
        ]
        for name, row in retained_rows(report)
    ]  # fmt: skip
    shown = _table([say(key, language) for key in keys], "llrrrrrl", rows)
    return [f"## {say('retained', language)}", say("retained_how", language), shown]


def _costs(report: Report, language: ReportLanguage) -> list[str]:
    lines = [[say(key, language), before, after] for key, before, after in cost_lines(report)]
    header = [say(key, language) for key in ("costs", "before", "after")]
    return [f"## {say('costs', language)}", _table(header, "lrr", lines)] if lines else []


def _slices(report: Report, language: ReportLanguage) -> list[str]:
    if not report.slices:
        return []
    header = [say(k, language) for k in ("slice", "before", "after", "delta", "interval", "n", "verdict")]
    rows = [
        [
            _plain(slice_name(part, language)), *_values(part.change), part.change.signed(part.change.delta),
            part.change.interval, str(part.change.cases), part.change.words(language),
        ]
        for part in report.slices
    ]  # fmt: skip
    title = f"## {say('slices', language)}"
    return [title, slices_how(report, language), _table(header, "lrrrrrl", rows)]


def _examples(report: Report, language: ReportLanguage) -> list[str]:
    blocks = [f"## {say('examples', language)}"]
    for key, empty, sides in (("gains", "no_gains", report.gains), ("losses", "no_losses", report.losses)):
        blocks.append(f"### {say(key, language)}")
        blocks.extend(_example(side, side_metric(report), language) for side in sides)
        if not sides:
            blocks.append(say(empty, language))
    return blocks


def _example(side: SideBySide, metric: str, language: ReportLanguage) -> str:
    lines = [f"**{_plain(side.case.id)}** ({metric} {points(side.gain)})", ""]
    lines += [
        f"- {say(f'role_{message.role}', language)}: {_plain(message.content)}"
        for message in side.case.history.messages
    ]
    answers = [("reference", side.case.reference), ("before", side.before), ("after", side.after)]
    if side.nearest is not None:
        answers.append(("nearest", side.nearest))
    for key, text in answers:
        lines.append(f"- **{say(key, language)}**: {_plain(text) or say('empty_answer', language)}")
    return "\n".join(lines)


def _identity(report: Report, language: ReportLanguage) -> list[str]:
    return [
        f"- {_plain(named(key, language))}: {_plain(value) or say('not_given', language)}"
        for key, value in identity_lines(report.identity)
    ]
