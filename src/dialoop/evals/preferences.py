"""Which of two answers a model finds likelier, before and after: rows for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dialoop.evals.compare import compare
from dialoop.evals.metrics import Metric, Stats, ratio, same_length
from dialoop.evals.report import Row, in_order
from dialoop.evals.task import origin
from dialoop.types import Preference

Likelihood = tuple[float, int]
"""Sum of natural logarithms over an answer's tokens, and their number."""
Likelihoods = Sequence[tuple[Likelihood, Likelihood]]
"""Of each pair: of the chosen and of the rejected answer."""


def preference_accuracy() -> Metric:
    """Share of pairs whose chosen answer is the likelier by token, in percent: the longer answer of two would
    hardly ever be as a whole.
    """

    def value(chosen: Stats, rejected: Stats) -> Stats:
        better = chosen[:, 0] / chosen[:, 1] > rejected[:, 0] / rejected[:, 1]
        return np.where(better, 100.0, 0.0)

    return _metric("preference accuracy", value, "log:e|per:token", digits=1)


def preference_margin() -> Metric:
    """log P(chosen) - log P(rejected), mean over the pairs: its change times beta is DPO's reward margin."""
    return _metric("preference margin", lambda c, r: c[:, 0] - r[:, 0], "log:e|sum:answer", digits=2)


def _metric(name: str, value: Callable[[Stats, Stats], Stats], signature: str, *, digits: int) -> Metric:
    """value: (n, 2) sums and tokens of both sides -> (n,)."""

    def cases(chosen: Sequence[Likelihood], rejected: Sequence[Likelihood]) -> Stats:
        same_length(chosen, rejected)
        sides = (np.asarray(side, np.float64) for side in (chosen, rejected))
        return np.column_stack([value(*sides), np.ones(len(chosen))])

    return Metric(name, cases, ratio, signature, digits=digits, reads="likelihood")


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
