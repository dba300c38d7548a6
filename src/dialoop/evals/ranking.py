"""Answers in an order: whether the right ones come first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dialoop.evals.metrics import Metric, Stats, ratio, same_length

Grades = Sequence[float]
"""How relevant each candidate is, in the candidates' own order; 0 = not at all."""


def recall_at(k: int) -> Metric:
    """Share of the relevant candidates among the first k, in percent."""
    return _mean(f"recall@{k}", lambda grades: float((grades[:k] > 0).sum() / max((grades > 0).sum(), 1)))


def reciprocal_rank() -> Metric:
    """Mean of 1 / rank of the first relevant candidate (MRR), in percent; 0 where there is none."""

    def of(grades: NDArray[np.float64]) -> float:
        places = np.flatnonzero(grades > 0)
        return 1 / (1 + float(places[0])) if len(places) else 0.0

    return _mean("MRR", of)


def ndcg(k: int = 10) -> Metric:
    """Normalised discounted gain of the first k, in percent (Järvelin, Kekäläinen 2002), grades as gains."""

    def of(grades: NDArray[np.float64]) -> float:
        best = _gain(np.sort(grades)[::-1][:k])
        return _gain(grades[:k]) / best if best else 0.0

    return _mean(f"nDCG@{k}", of)


def _gain(grades: NDArray[np.float64]) -> float:
    return float((grades / np.log2(np.arange(len(grades)) + 2)).sum())


def _mean(name: str, of: Callable[[NDArray[np.float64]], float]) -> Metric:
    """A mean over cases. of: the grades in the order that was found -> 0 to 1."""

    def cases(scores: Sequence[Sequence[float]], grades: Sequence[Grades]) -> Stats:
        same_length(scores, grades)
        pairs = zip(scores, grades, strict=True)
        return np.array([[100 * of(_in_order(score, grade)), 1.0] for score, grade in pairs])

    return Metric(name, cases, ratio, "ties:against", reads="scores")


def _in_order(scores: Sequence[float], grades: Grades) -> NDArray[np.float64]:
    """Grades by falling score; of equal scores the lesser grade first, so that no model gains by saying the
    same of all.
    """
    same_length(scores, grades)
    right = np.asarray(grades, float)
    return right[np.lexsort((right, -np.asarray(scores, float)))]
