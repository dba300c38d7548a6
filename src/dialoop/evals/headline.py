"""The report's headline: what a person who reads one sentence should know."""

from __future__ import annotations

from collections.abc import Sequence

from dialoop.evals.messages import ReportLanguage, language_name, named, say
from dialoop.evals.report import Report, Row
from dialoop.evals.suites import task_named


def headline(report: Report, language: ReportLanguage = "en") -> str:
    """Whether the model is better, whether it beats the nearest-neighbour baseline, and what it forgot."""
    space = " " if language == "en" else ""
    told = [overall(report, language), against_nearest(report, language)]
    return space.join([*told, forgotten(report, language)] if report.retained else told)


def overall(report: Report, language: ReportLanguage = "en") -> str:
    """Whether the model is better, by the headline metrics of every language."""
    return say(_overall(report), language)


def findings(report: Report, language: ReportLanguage = "en") -> tuple[str, ...]:
    """A line a language: the headline metrics with their verdicts."""
    stop = "; " if language == "en" else "；"
    colon = ": " if language == "en" else "："
    return tuple(
        language_name(code, language)
        + colon
        + stop.join(_finding(row, language) for row in _headline_rows(report) if row.language == code)
        for code in report.languages
        if code != "all"
    )


def _finding(row: Row, language: ReportLanguage) -> str:
    words = row.change.words(language)
    name = named(row.change.metric, language)
    return words if name in words else f"{name} {words}"


def _headline_rows(report: Report) -> list[Row]:
    wanted = task_named(report.task).headline
    return [row for row in report.rows if row.language != "all" and row.change.metric in wanted]


def _overall(report: Report) -> str:
    """The key of the sentence that sums up the headline metrics of every language."""
    verdicts = {row.change.verdict for row in _headline_rows(report)}
    if verdicts <= {"same"}:
        return "head_same"
    if verdicts <= {"better"}:
        return "head_better"
    if "better" in verdicts:
        return "head_trade" if "worse" in verdicts else "head_mixed"
    return "head_worse" if "worse" in verdicts else "head_unclear"


def against_nearest(report: Report, language: ReportLanguage = "en") -> str:
    """Whether the model beats the nearest-neighbour baseline, and where it does not."""
    wanted = task_named(report.task).baseline
    rows = [
        row
        for row in report.rows
        if row.nearest is not None and row.language != "all" and row.change.metric in wanted
    ]
    if not rows:
        return say("nearest_missing", language)
    lost = [row for row in rows if row.nearest and not row.nearest.delta > 0]
    unclear = [row for row in rows if row.nearest and row.nearest.verdict != "better"]
    key = "nearest_lost" if lost else "nearest_unclear" if unclear else "nearest_beaten"
    return say(key, language, where=_where(lost or unclear or rows, language))


def forgotten(report: Report, language: ReportLanguage = "en") -> str:
    """On which of the retained sets the model is shown to be worse."""
    worse = [
        f"{part.name} ({row.change.change(language)})"
        for part in report.retained
        for row in part.report.rows
        if row.change.verdict == "worse" and row.language != "all"
    ]
    stop = ", " if language == "en" else "，"
    return say("forgot", language, where=stop.join(worse)) if worse else say("forgot_not", language)


def _where(rows: Sequence[Row], language: ReportLanguage) -> str:
    stop = ", " if language == "en" else "，"
    return stop.join(
        say(
            "against",
            language,
            where=language_name(row.language, language),
            metric=row.change.metric,
            after=row.change.number(row.change.after),
            nearest=row.change.number(row.nearest.before if row.nearest else float("nan")),
        )
        for row in rows
    )
