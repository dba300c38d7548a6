"""Wilson's interval, McNemar's test and Holm's correction: parity with scipy, statsmodels and definitions."""

from __future__ import annotations

import math
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from dialoop.errors import EvalError
from dialoop.evals.compare import compare
from dialoop.evals.families import corrected, holm
from dialoop.evals.metrics import Metric, exact_match, ratio
from dialoop.evals.shares import mcnemar, wilson

shares = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(shares)
def test_wilsons_interval_equals_scipys(share: tuple[int, int]) -> None:
    hits, cases = share
    theirs = binomtest(hits, cases).proportion_ci(method="wilson")
    ours = wilson(hits, cases)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.low <= ours.value <= ours.high


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(EvalError, match="5 hits of 4 cases"):
        wilson(5, 4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=120))
def test_mcnemar_equals_scipys_binomial_test_of_the_flips(pairs: list[tuple[bool, bool]]) -> None:
    flips = mcnemar([b for b, _ in pairs], [a for _, a in pairs])
    assert flips.gained - flips.lost == sum(a for _, a in pairs) - sum(b for b, _ in pairs)
    if flips.gained + flips.lost:
        theirs = binomtest(flips.gained, flips.gained + flips.lost, 0.5).pvalue
        assert flips.p == pytest.approx(theirs, abs=1e-9)
    else:
        assert flips.p == 1


def test_mcnemar_and_holm_equal_statsmodels_numbers() -> None:
    # statsmodels 0.15: mcnemar([[30, 12], [4, 50]], exact=True); multipletests(..., method="holm")
    before = [True] * 42 + [False] * 54
    after = [True] * 30 + [False] * 12 + [True] * 4 + [False] * 50
    assert mcnemar(before, after).p == pytest.approx(0.076812744140625)
    assert holm([0.01, 0.04, 0.03, 0.005, 0.2]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_testing_of_bonferroni(ps: list[float]) -> None:
    everything = range(len(ps))
    sets = [*chain.from_iterable(combinations(everything, n) for n in range(1, len(ps) + 1))]
    closed = [
        max(min(1.0, len(each) * min(ps[j] for j in each)) for each in sets if i in each) for i in everything
    ]
    assert holm(ps) == pytest.approx(closed)


def answered(right: int, cases: int) -> list[str]:
    return ["yes"] * right + ["no"] * (cases - right)


def test_cases_that_are_right_or_wrong_are_told_by_mcnemar() -> None:
    metric, wanted = exact_match(), ["yes"] * 30
    before, after = metric.cases(answered(5, 30), wanted), metric.cases(answered(19, 30), wanted)
    found = compare(metric, before, after)
    assert found.p == pytest.approx(binomtest(0, 14, 0.5).pvalue)
    assert found.signature.endswith("|p:mcnemar")
    assert found.verdict == "better"


def test_cases_in_groups_are_resampled_and_not_told_by_mcnemar() -> None:
    metric, wanted = exact_match(), ["yes"] * 30
    before, after = metric.cases(answered(5, 30), wanted), metric.cases(answered(19, 30), wanted)
    found = compare(metric, before, after, groups=[i // 10 for i in range(30)])
    assert "mcnemar" not in found.signature
    assert found.verdict == "unclear"


def test_what_chance_may_explain_among_many_comparisons_can_no_longer_be_told() -> None:
    metric, wanted = exact_match(), ["yes"] * 40
    before = metric.cases(answered(10, 40), wanted)
    slight = compare(metric, before, metric.cases(answered(17, 40), wanted))
    strong = compare(metric, before, metric.cases(answered(30, 40), wanted))
    assert (slight.verdict, strong.verdict) == ("better", "better")
    first, second, *_ = corrected([slight, strong, *[slight] * 4])
    assert (first.verdict, second.verdict) == ("unclear", "better")
    assert first.holm == pytest.approx(5 * slight.p)
    assert first.words() == "cannot tell with 40 cases: among 6 comparisons it may be chance"
    assert first.words("zh") == "仅凭 40 个样例无法判断：在 6 项比较之中可能只是偶然"


def test_the_smallest_visible_change_is_that_of_the_textbook() -> None:
    generator = np.random.default_rng(5)
    mean = Metric("score", lambda a, b: np.column_stack([a, np.ones(len(a))]), ratio, "mean")
    before, after = generator.normal(50, 10, 200), generator.normal(51, 10, 200)
    found = compare(mean, mean.cases(before, ()), mean.cases(after, ()))
    error = (after - before).std(ddof=1) / math.sqrt(200)
    assert found.detectable == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * error, rel=0.06)
