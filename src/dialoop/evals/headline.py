"""The report's headline: what a person who reads one sentence should know."""

from __future__ import annotations

from collections.abc import Sequence

from dialoop.evals.messages import ReportLanguage, language_name, named, say
from dialoop.evals.report import Report, Retained, Row
from dialoop.evals.suites import task_named

LEAKED, SLOWER = 0.01, 1.2
"""A share of repeated test dialogues, and a ratio of seconds, above which advice speaks of them."""


def headline(report: Report, language: ReportLanguage = "en") -> str:
    """Whether the model is better, whether it beats the nearest-neighbour baseline, what it forgot, and what
    that means for who has to choose.
    """
    space = " " if language == "en" else ""
    told = [overall(report, language), against_nearest(report, language)]
    told += [forgotten(report, language)] if report.retained else []
    return space.join(filter(None, [*told, advice(report, language)]))


def overall(report: Report, language: ReportLanguage = "en") -> str:
    """Whether the model is better, by the headline metrics of every language."""
    told = say(_overall(report), language, **_names(report, language))
    return told if report.identity.model else told[:1].upper() + told[1:]


def _names(report: Report, language: ReportLanguage) -> dict[str, str]:
    """Of both sides, as they were given."""
    identity = report.identity
    return {
        "before": identity.base or say("side_before", language),
        "after": identity.model or say("side_after", language),
    }


def advice(report: Report, language: ReportLanguage = "en") -> str:
    """Which model to take, and what speaks against it."""
    found, lost = _overall(report), bool(_forgotten(report))
    better = found in ("head_better", "head_mixed")
    needed = [row.change.needed for row in _headline_rows(report) if row.change.needed]
    key = {"head_trade": "weigh", "head_worse": "keep", "head_same": "same"}.get(found, "unclear")
    key = ("weigh" if lost else "take") if better else key
    key = "unclear_needed" if key == "unclear" and needed else key
    told = [say(f"advice_{key}", language, **_names(report, language), needed=min(needed, default=0))]
    if report.leaked is not None and report.leaked > LEAKED:
        told.append(say("advice_leaked", language, share=f"{100 * report.leaked:.0f}"))
    before, after = report.costs
    if before and after and after.median_seconds > SLOWER * before.median_seconds:
        times = f"{after.median_seconds / before.median_seconds:.1f}"
        told.append(say("advice_slower", language, times=times))
    return (" " if language == "en" else "").join(told)


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
    """Whether the model beats the nearest-neighbour baseline, and where it does not; "" without one."""
    wanted = task_named(report.task).baseline
    rows = [
        row
        for row in report.rows
        if row.nearest is not None and row.language != "all" and row.change.metric in wanted
    ]
    if not rows:
        return ""
    lost = [row for row in rows if row.nearest and not row.nearest.delta > 0]
    unclear = [row for row in rows if row.nearest and row.nearest.verdict != "better"]
    key = "nearest_lost" if lost else "nearest_unclear" if unclear else "nearest_beaten"
    return say(key, language, where=_where(lost or unclear or rows, language))


def forgotten(report: Report, language: ReportLanguage = "en") -> str:
    """On which of the retained sets the model is shown to be worse."""
    worse = [f"{part.name} ({row.change.change(language)})" for part, row in _forgotten(report)]
    stop = ", " if language == "en" else "，"
    return say("forgot", language, where=stop.join(worse)) if worse else say("forgot_not", language)


def _forgotten(report: Report) -> list[tuple[Retained, Row]]:
    return [
        (part, row)
        for part in report.retained
        for row in part.report.rows
        if row.change.verdict == "worse" and row.language != "all"
    ]


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
