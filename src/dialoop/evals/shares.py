"""Shares of cases: their interval, and whether two shares of the same cases differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from dialoop.errors import EvalError

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `cases`, with the interval [low, high] of the true share, all from 0 to 1."""

    hits: int
    cases: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The observed share."""
        return self.hits / self.cases


@dataclass(frozen=True, slots=True)
class Flips:
    """Cases that turned right, cases that turned wrong, and McNemar's two-sided p."""

    gained: int
    lost: int
    p: float


def wilson(hits: int, cases: int, confidence: float = CONFIDENCE) -> Share:
    """Wilson's score interval (1927), which holds near 0 and 1 and for few cases. Raises EvalError."""
    if not 0 <= hits <= cases or not cases:
        raise EvalError(f"{hits} hits of {cases} cases came: give 0 to {cases} hits of at least one case")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = hits / cases, 1 + z * z / cases
    middle = (share + z * z / (2 * cases)) / weight
    half = z / weight * math.sqrt(share * (1 - share) / cases + z * z / (4 * cases * cases))
    low = 0.0 if hits == 0 else middle - half
    return Share(hits, cases, low, 1.0 if hits == cases else middle + half)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> Flips:
    """McNemar's exact test (1947) on independent cases that were right or wrong. Raises EvalError."""
    if len(before) != len(after):
        raise EvalError(f"{len(before)} cases before and {len(after)} after: give the same cases, in order")
    pairs = [(bool(b), bool(a)) for b, a in zip(before, after, strict=True)]
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    return Flips(gained, lost, _fair_coin(min(gained, lost), gained + lost))


def _fair_coin(heads: int, tosses: int) -> float:
    """Two-sided p of at most `heads` heads of a fair coin."""
    term = total = 1
    for k in range(heads):
        term = term * (tosses - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**tosses) if tosses else 1.0
