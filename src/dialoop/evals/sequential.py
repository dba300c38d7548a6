"""Is one arm better, to be looked at as often as one likes? Normal-mixture confidence sequences.

An ordinary test that is looked at every day and ended once p < 0.05 errs far more often than one time in
twenty. The mixture sequential probability ratio test (Robbins 1970; Johari, Pekelis and Walsh, Always valid
inference, arXiv:1512.04922) holds at every look together: mixed over effects ~ N(0, tau^2),

    L = sqrt(V / (V + tau^2)) exp(tau^2 d^2 / (2 V (V + tau^2)))

for a difference d of variance V, and p = 1 / L. Variances are estimated, which is right for many units
(Waudby-Smith et al., arXiv:2103.06476): below `FEWEST` an arm nothing is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dialoop.errors import EvalError
from dialoop.evals.messages import ReportLanguage, say
from dialoop.evals.shares import CONFIDENCE

FEWEST = 25
"""Units of an arm before anything is told."""
EXPECTED = 0.1
"""tau, in standard deviations of a unit: the effect for which a decision comes soonest."""
SKEWED = 0.001
"""A p of the arms' sizes below which something else than chance has parted the units."""
Found = Literal["better", "worse", "unclear", "few"]


@dataclass(frozen=True, slots=True)
class Arm:
    """What became of the units of one arm, such as its users' mean ratings."""

    name: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """NaN for no unit."""
        return float(np.mean(self.values)) if self.values else math.nan


@dataclass(frozen=True, slots=True)
class Reading:
    """`arm` against `control` so far.

    delta: arm - control, [low, high] holds the true one at all looks together with 95 % confidence.
    p: always valid.  needed: units in all at which the present difference would be told; None = unknown.
    """

    control: str
    arm: str
    delta: float
    low: float
    high: float
    p: float
    units: tuple[int, int]
    found: Found
    needed: int | None = None

    def words(self, language: ReportLanguage = "en") -> str:
        """What may be said now."""
        key = f"ab_{self.found}" if self.found != "unclear" or self.needed else "ab_close"
        return say(
            key, language, arm=self.arm, control=self.control, delta=f"{self.delta:+.3f}".replace("-", "−"),
            interval=f"[{self.low:.3f}, {self.high:.3f}]".replace("-", "−"), p=f"{self.p:.3f}",
            units=sum(self.units), needed=self.needed, fewest=FEWEST,
        )  # fmt: skip


def read(control: Arm, arm: Arm, *, confidence: float = CONFIDENCE, expected: float = EXPECTED) -> Reading:
    """Of two arms whose units were parted by chance. Raises EvalError for a value that is no number."""
    sides = [np.asarray(side.values, float) for side in (control, arm)]
    if not all(np.isfinite(side).all() for side in sides):
        raise EvalError("a value is not finite: give a number for every unit")
    units = (len(sides[0]), len(sides[1]))
    if min(units) < FEWEST:
        delta = arm.mean - control.mean
        return Reading(control.name, arm.name, delta, -math.inf, math.inf, 1.0, units, "few")
    delta = float(sides[1].mean() - sides[0].mean())
    spread = float(np.mean([side.var(ddof=1) for side in sides]))
    variance = float(sum(side.var(ddof=1) / len(side) for side in sides))
    if variance == 0:  # no unit differs from another: what may still come is not known
        return Reading(control.name, arm.name, delta, -math.inf, math.inf, 1.0, units, "unclear")
    mixed = expected**2 * spread
    half = _half(variance, mixed, 1 - confidence)
    found: Found = "unclear" if delta - half <= 0 <= delta + half else "better" if delta > 0 else "worse"
    needed = _needed(units, delta, variance, mixed, 1 - confidence) if found == "unclear" else None
    p = _p(delta, variance, mixed)
    return Reading(control.name, arm.name, delta, delta - half, delta + half, p, units, found, needed)


def _p(delta: float, variance: float, mixed: float) -> float:
    log = 0.5 * math.log(variance / (variance + mixed))
    return min(1.0, math.exp(-(log + mixed * delta**2 / (2 * variance * (variance + mixed)))))


def _half(variance: float, mixed: float, error: float) -> float:
    """Half the width of the interval: where p reaches `error`."""
    inside = 2 * math.log(1 / error) + math.log((variance + mixed) / variance)
    return math.sqrt(variance * (variance + mixed) / mixed * inside)


def _needed(units: tuple[int, int], delta: float, variance: float, mixed: float, error: float) -> int | None:
    """By doubling: the variance of a difference falls with the number of units."""
    total, times = sum(units), 1.0
    while delta and total * times < 10_000_000:
        times *= 1.1
        if abs(delta) > _half(variance / times, mixed, error):
            wanted = math.ceil(total * times)
            scale = int(10 ** max(0, len(str(wanted)) - 2))
            return math.ceil(wanted / scale) * scale
    return None


def parted_by_chance(counts: Sequence[int], weights: Sequence[float]) -> float:
    """p of the arms' numbers of units under their weights (chi-squared): very small = something is wrong."""
    from scipy.stats import chisquare

    total = sum(counts)
    if not total:
        return 1.0
    wanted = [total * weight / sum(weights) for weight in weights]
    return float(chisquare(counts, wanted).pvalue)
