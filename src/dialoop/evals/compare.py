"""Is after better than before? Paired bootstrap (Koehn 2004, W04-3250) and a verdict in words.

Where each case is right or wrong and stands alone, p is McNemar's exact one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from dialoop.errors import EvalError
from dialoop.evals.messages import ReportLanguage, named, say
from dialoop.evals.metrics import Metric, Stats
from dialoop.evals.shares import CONFIDENCE, mcnemar

Verdict = Literal["better", "worse", "higher", "lower", "same", "unclear"]
POWER = 0.8
MOST_CASES = 100_000
_CHUNK = 4_000_000
_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
_POWER_WIDTH = (_Z + _NORMAL.inv_cdf(POWER)) / _Z
"""A change of so many half widths of its interval is told with power 0.8."""
_HUGE = 1e5


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric before and after on the same cases.

    delta: after - before, with its `confidence` interval [low, high]; NaN where there is one group.
    p: two-sided: twice the share of resamples on the other side of zero, or McNemar's.
    groups: units that were resampled; equal to `cases` where every case stands alone.
    needed: cases, these included, for the interval to miss zero with power 0.8; None where it does
    already, or where no affordable number would do.
    detectable: the change that as many cases would tell with power 0.8.
    holm: p corrected for a family of so many comparisons; None where it stands alone.
    """

    metric: str
    before: float
    after: float
    delta: float
    low: float
    high: float
    p: float
    cases: int
    groups: int
    signature: str
    verdict: Verdict
    needed: int | None = None
    digits: int = 1
    detectable: float = math.nan
    holm: float | None = None
    family: int = 1
    higher_is_better: bool | None = True

    def words(self, language: ReportLanguage = "en") -> str:
        """The verdict as a sentence: `better: BLEU +3.1 [1.9, 4.4]`."""
        if self.verdict != "unclear":
            return say(self.verdict, language, what=self.change(language), cases=self.cases)
        return say(
            self._unclear, language, cases=self.cases, needed=self.needed, groups=self.groups,
            family=self.family, detectable=self.number(self.detectable),
        )  # fmt: skip

    @property
    def _unclear(self) -> str:
        """The key of the sentence that says why nothing can be told."""
        if math.isnan(self.low):
            return "unclear_few"
        if self.needed:
            return "unclear"
        return "unclear_close" if self.low <= 0 <= self.high else "unclear_many"

    def change(self, language: ReportLanguage = "en") -> str:
        """`BLEU +3.1 [1.9, 4.4]`."""
        return f"{named(self.metric, language)} {self.signed(self.delta)} {self.interval}"

    @property
    def interval(self) -> str:
        """`[1.9, 4.4]`, or a dash where there is none."""
        return "–" if math.isnan(self.low) else f"[{self.number(self.low)}, {self.number(self.high)}]"

    def number(self, value: float) -> str:
        """`value` with the metric's digits and a true minus sign."""
        return self._written(value, "")

    def signed(self, value: float) -> str:
        """`value` with the metric's digits and its sign."""
        return self._written(value, "+")

    def _written(self, value: float, sign: str) -> str:
        if math.isnan(value):
            return "–"
        style = f"{sign}.{self.digits}f" if abs(value) < _HUGE else f"{sign}.1e"
        return f"{value:{style}}".replace("-", "−")


def compare(
    metric: Metric,
    before: Stats,
    after: Stats,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare (N, k) statistics of the same N cases; `groups` (N) names what is resampled as a whole.

    Raises EvalError for statistics of other shapes or of no case.
    """
    _same_cases(before, after, groups)
    units_before, units_after = by_group(before, groups), by_group(after, groups)
    first, second = metric.aggregate(before.sum(0)), metric.aggregate(after.sum(0))
    deltas = resampled_deltas(metric, units_before, units_after, resamples=resamples, seed=seed)
    low, high = interval(deltas, len(units_before))
    delta, exact = second - first, metric.binary and len(units_before) == len(before)
    p = mcnemar(*(list(side[:, 0] > 0) for side in (before, after))).p if exact else p_value(deltas)
    unchanged = bool(np.array_equal(before, after))
    verdict: Verdict = "same" if unchanged else _verdict(low, high, p, metric.higher_is_better)
    signature = f"{metric.signature}|bs:{resamples}|rs:{seed}|unit:{'case' if groups is None else 'group'}"
    return Comparison(
        metric.name, first, second, delta, low, high, p, len(before), len(units_before),
        f"{signature}|p:mcnemar" if exact else signature, verdict,
        _needed(len(before), delta, low, high) if verdict == "unclear" else None, metric.digits,
        (high - low) / 2 * _POWER_WIDTH, higher_is_better=metric.higher_is_better,
    )  # fmt: skip


def _same_cases(before: Stats, after: Stats, groups: Sequence[Hashable] | None) -> None:
    if before.shape != after.shape or before.ndim != 2 or not len(before):
        raise EvalError(
            f"statistics of shapes {before.shape} and {after.shape} came: give (cases, k) of the same cases, "
            f"at least one"
        )
    if groups is not None and len(groups) != len(before):
        raise EvalError(f"{len(groups)} groups came for {len(before)} cases: name the group of every case")


def by_group(stats: Stats, groups: Sequence[Hashable] | None) -> Stats:
    """Sums of the statistics of each group, in order of first appearance."""
    if groups is None:
        return stats
    positions = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(positions), stats.shape[1]))
    np.add.at(sums, [positions[group] for group in groups], stats)
    return sums


def resampled_deltas(metric: Metric, before: Stats, after: Stats, *, resamples: int, seed: int) -> Stats:
    """(resamples,) differences of the metric on resampled units, the same units for both sides."""
    drawn = _draws(len(before), resamples, seed)
    return np.concatenate([metric.scores(n @ after) - metric.scores(n @ before) for n in drawn])


def resampled(metric: Metric, units: Stats, *, resamples: int, seed: int) -> Stats:
    """(resamples,) values of the metric on resampled units."""
    return np.concatenate([metric.scores(n @ units) for n in _draws(len(units), resamples, seed)])


def _draws(units: int, resamples: int, seed: int) -> Iterator[Stats]:
    """(some, units) how often each unit is drawn, `resamples` rows in all."""
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // units)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.choice(units, size=(rows, units), replace=True)
        flat = drawn + units * np.arange(rows)[:, None]
        yield np.bincount(flat.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def interval(deltas: Stats, units: int) -> tuple[float, float]:
    """The percentile interval, widened for few units (Hesterberg 2015, arXiv:1411.5279, section 5.3)."""
    finite = deltas[np.isfinite(deltas)]
    if units < 2 or not len(finite):
        return math.nan, math.nan
    wide = math.sqrt(units / (units - 1)) * _student(_Z, units - 1)
    tail = 1 - _NORMAL.cdf(wide)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def _student(z: float, freedom: int) -> float:
    """Student's t quantile from the normal one (Abramowitz and Stegun 26.7.5)."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def p_value(deltas: Stats) -> float:
    """Two-sided achieved significance: twice the smaller share of resamples at or beyond zero, one added."""
    finite = deltas[np.isfinite(deltas)]
    beyond = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(finite) + 1))


def _verdict(low: float, high: float, p: float, higher_is_better: bool | None) -> Verdict:
    """By interval and p: a bound at zero decides nothing."""
    if not (low > 0 or high < 0) or p > 1 - CONFIDENCE:
        return "unclear"
    if higher_is_better is None:
        return "higher" if low > 0 else "lower"
    return "better" if (low > 0) == higher_is_better else "worse"


def cases_for(change: Comparison, bound: float = 0.0) -> int | None:
    """Cases with which the interval would miss a bound below (better upwards) with power 0.8; None: never.

    The change itself is taken as the truth.
    """
    upwards = -change.delta if change.higher_is_better is False else change.delta
    if not upwards > bound:
        return None
    return _needed(change.cases, upwards - bound, change.low, change.high)


def _needed(cases: int, delta: float, low: float, high: float) -> int | None:
    """By the width's fall with the square root of the number of cases; two significant digits."""
    if not all(map(math.isfinite, (delta, low, high))) or delta == 0:
        return None
    wanted = max(cases + 1, math.ceil(cases * ((high - low) / 2 * _POWER_WIDTH / delta) ** 2))
    scale = 10 ** max(0, len(str(wanted)) - 2)
    wanted = math.ceil(wanted / scale) * scale
    return wanted if wanted <= MOST_CASES else None
