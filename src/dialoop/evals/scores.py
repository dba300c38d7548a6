"""One model's scores on a task, with their intervals, and who was taken for whom."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dialoop.evals.classes import ClassReport, class_report, confusion
from dialoop.evals.compare import by_group, interval, resampled
from dialoop.evals.metrics import Metric
from dialoop.evals.picture import confusion_picture
from dialoop.evals.png import write_png
from dialoop.evals.report import in_order, stats_of
from dialoop.evals.suites import Task
from dialoop.evals.task import Outcome
from dialoop.evals.written import plain

SCHEMA = "dialoop.scores/1"


@dataclass(frozen=True, slots=True)
class Score:
    """A metric on the cases of one language; [low, high] is its 95 % interval, NaN for a single group."""

    language: str
    metric: str
    value: float
    low: float
    high: float
    cases: int
    signature: str
    digits: int = 1

    @property
    def interval(self) -> str:
        """`[1.9, 4.4]`, or a dash where there is none."""
        if math.isnan(self.low):
            return "–"
        return f"[{self.low:.{self.digits}f}, {self.high:.{self.digits}f}]"


@dataclass(frozen=True, slots=True)
class Scores:
    """classes: of a classification; None of other tasks.  answers: (reference, answer) of every case.

    shortened: histories that lost their oldest exchanges to fit into the model's context.
    """

    model: str
    task: str
    scores: tuple[Score, ...]
    classes: ClassReport | None
    answers: tuple[tuple[str, str], ...]
    identity: Mapping[str, str]
    shortened: int = 0


def scores_of(
    model: str,
    outcomes: Sequence[Outcome],
    task: Task,
    more: Sequence[Metric] = (),
    *,
    resamples: int = 2000,
    seed: int = 0,
    identity: Mapping[str, str] | None = None,
) -> Scores:
    """By language, the task's metrics and `more`."""
    found = []
    for language in in_order({outcome.case.language for outcome in outcomes}):
        mine = [o for o in outcomes if language in ("all", o.case.language)]
        metrics = (*task.metrics(language, [o.case.reference for o in mine]), *more)
        rows = (score_of(metric, language, mine, resamples, seed) for metric in metrics)
        found += [row for row in rows if row is not None]
    answers = tuple((o.case.reference, o.answer) for o in outcomes if o.answer is not None)
    classes = class_report(*_columns(answers)) if task.options == "labels" else None
    shortened = sum(outcome.shortened for outcome in outcomes)
    return Scores(model, task.name, tuple(found), classes, answers, identity or {}, shortened)


def score_of(
    metric: Metric, language: str, outcomes: Sequence[Outcome], resamples: int, seed: int
) -> Score | None:
    """Of these outcomes; None where no case has what the metric reads."""
    kept = [outcome for outcome in outcomes if outcome.has(metric.reads)]
    if not kept:
        return None
    units = by_group(stats_of(metric, kept), [outcome.case.group for outcome in kept])
    low, high = interval(resampled(metric, units, resamples=resamples, seed=seed), len(units))
    value = metric.aggregate(units.sum(0))
    return Score(language, metric.name, value, low, high, len(kept), metric.signature, metric.digits)


def write(found: Scores, folder: Path) -> Path:
    """Write `scores.json`, and `confusion.png` of a classification; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scores.json"
    text = json.dumps({"schema": SCHEMA, **plain(found)}, ensure_ascii=False, allow_nan=False, indent=1)
    path.write_text(text, encoding="utf-8")
    if found.classes is not None:
        write_png([confusion_picture(confusion(*_columns(found.answers)))], folder / "confusion.png")
    return path


def _columns(answers: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [right for right, _ in answers], [said for _, said in answers]
