"""Which of two answers a model finds likelier, before and after: rows for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dialoop.evals.compare import compare
from dialoop.evals.metrics import Metric, Stats, ratio, same_length
from dialoop.evals.report import Row, in_order
from dialoop.evals.task import origin
from dialoop.types import Preference

Likelihoods = Sequence[tuple[float, float]]
"""Of each pair the chosen and the rejected answer: sums of natural logarithms over their tokens."""


def preference_accuracy() -> Metric:
    """Share of pairs whose chosen answer is the likelier, in percent."""
    return _metric("preference accuracy", lambda margins: np.where(margins > 0, 100.0, 0.0), digits=1)


def preference_margin() -> Metric:
    """log P(chosen) - log P(rejected), mean over the pairs: its change times beta is DPO's reward margin."""
    return _metric("preference margin", lambda margins: margins, digits=2)


def _metric(name: str, value: Callable[[Stats], Stats], *, digits: int) -> Metric:
    def cases(chosen: Sequence[float], rejected: Sequence[float]) -> Stats:
        same_length(chosen, rejected)
        margins = np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64)
        return np.column_stack([value(margins), np.ones(len(margins))])

    return Metric(name, cases, ratio, "log:e|sum:answer", digits=digits, reads="likelihood")


def preference_rows(
    preferences: Sequence[Preference],
    before: Likelihoods,
    after: Likelihoods,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Row, ...]:
    """Both metrics by language, each pair with itself, groups resampled whole."""
    origins = [origin(pair.conversation, i) for i, pair in enumerate(preferences)]
    rows = []
    for language in in_order({language for language, _ in origins}):
        mine = [i for i, (spoken, _) in enumerate(origins) if language in ("all", spoken)]
        groups = [origins[i][1] for i in mine]
        for metric in (preference_accuracy(), preference_margin()):
            sides = [metric.cases(*zip(*(side[i] for i in mine), strict=True)) for side in (before, after)]
            change = compare(metric, *sides, groups=groups, resamples=resamples, seed=seed)
            rows.append(Row(language, change))
    return tuple(rows)
