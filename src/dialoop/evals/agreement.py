"""How far two raters agree beyond chance: Cohen's kappa (1960), weighted for grades (1968)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dialoop.errors import EvalError
from dialoop.evals.compare import interval
from dialoop.evals.messages import ReportLanguage, say

Rating = str | int | float
WEAK = 0.4
"""Below it, agreement is no more than fair by the usual reading (Landis and Koch 1977)."""
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Agreement:
    """kappa with its 95 % interval; raw: share of equal ratings. kappa is NaN where all are one rating."""

    kappa: float
    low: float
    high: float
    raw: float
    cases: int

    @property
    def weak(self) -> bool:
        """Whether the interval does not rule a weak rater out."""
        return not self.low >= WEAK

    def words(self, language: ReportLanguage = "en") -> str:
        """The agreement as a sentence, with a warning where it is weak."""
        key = "judge_weak" if self.weak else "judge_agrees"
        numbers = {"kappa": f"{self.kappa:.2f}", "low": f"{self.low:.2f}", "high": f"{self.high:.2f}"}
        return say(key, language, cases=self.cases, raw=f"{100 * self.raw:.0f}", **numbers)


def agreement(
    first: Sequence[Rating], second: Sequence[Rating], *, graded: bool = False, seed: int = 0
) -> Agreement:
    """graded: ratings are numbers, and a near miss counts for less (quadratic weights). Raises EvalError."""
    if len(first) != len(second) or not first:
        raise EvalError(f"{len(first)} ratings came beside {len(second)}: give two of every case, and a case")
    known = sorted({*first, *second}, key=lambda rating: (isinstance(rating, str), rating))
    places = {rating: i for i, rating in enumerate(known)}
    cells = np.array([places[a] * len(known) + places[b] for a, b in zip(first, second, strict=True)])
    weights = _weights(known, graded)
    drawn = np.random.default_rng(seed).integers(0, len(cells), (RESAMPLES, len(cells)))
    resampled = np.array([_kappa(cells[rows], weights) for rows in drawn])
    low, high = interval(resampled, len(cells))
    raw = float(np.mean([a == b for a, b in zip(first, second, strict=True)]))
    return Agreement(_kappa(cells, weights), low, high, raw, len(cells))


def _weights(known: Sequence[Rating], graded: bool) -> NDArray[np.float64]:
    """(R, R) cost of each disagreement: 1, or the squared difference of the grades."""
    if not graded:
        return 1 - np.eye(len(known))
    grades = np.array([float(rating) for rating in known])
    return np.asarray((grades[:, None] - grades[None, :]) ** 2)


def _kappa(cells: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """1 - observed over expected cost. cells: first's rating times R plus second's."""
    size = len(weights)
    table = np.bincount(cells, minlength=size * size).reshape(size, size)
    expected = float((weights * np.outer(table.sum(1), table.sum(0))).sum()) / len(cells)
    return 1 - float((weights * table).sum()) / expected if expected else float("nan")
