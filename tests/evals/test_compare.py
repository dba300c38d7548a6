"""The paired bootstrap: parity with sacrebleu, coverage, groups, verdicts."""

from __future__ import annotations

import math
import random
import string

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from dialoop.errors import EvalError
from dialoop.evals import metrics
from dialoop.evals.compare import Comparison, compare, interval, resampled_deltas
from dialoop.evals.messages import MESSAGES, REPORT_LANGUAGES, say
from dialoop.evals.metrics import Metric, Stats, ratio

MEAN = Metric("score", lambda a, b: np.column_stack([np.asarray(a, float), np.ones(len(a))]), ratio, "mean")


def per_case(values: list[float]) -> Stats:
    return MEAN.cases(values, values)


def answers(seed: int, kept: float, references: list[str]) -> list[str]:
    generator = random.Random(seed)
    words = sorted({word for r in references for word in r.split()})
    return [
        " ".join(w if generator.random() < kept else generator.choice(words) for w in r.split())
        for r in references
    ]


@pytest.fixture(scope="module")
def references() -> list[str]:
    generator = random.Random(7)
    words = [
        "my",
        "order",
        "has",
        "not",
        "come",
        "yet",
        "please",
        "send",
        "the",
        "refund",
        "to",
        "an",
        "account",
        "today",
    ]
    return [" ".join(generator.choices(words, k=generator.randint(4, 15))) for _ in range(80)]


def test_resamples_and_p_equal_sacrebleus_paired_bootstrap(
    references: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "12345")
    before, after = answers(1, 0.60, references), answers(2, 0.66, references)
    test = PairedTest(
        [("before", before), ("after", after)], {"BLEU": BLEU()}, [references], test_type="bs", n_samples=1000
    )
    _, scores = test()
    theirs = scores["BLEU"][1]
    metric = metrics.bleu("en")
    ours = compare(
        metric, metric.cases(before, references), metric.cases(after, references), resamples=1000, seed=12345
    )
    assert ours.after == pytest.approx(theirs.score, abs=1e-3)
    assert ours.before == pytest.approx(scores["BLEU"][0].score, abs=1e-3)
    deltas = resampled_deltas(
        metric,
        np.zeros((80, 10)),
        metric.cases(after, references),
        resamples=1000,
        seed=12345,
    )
    assert deltas.mean() == pytest.approx(theirs.mean, abs=1e-3)
    half = (np.sort(deltas)[-26] - np.sort(deltas)[25]) / 2
    assert half == pytest.approx(theirs.ci, abs=1e-3)
    # sacrebleu centres and counts the upper tail alone; ours is the two-sided share beyond zero.
    assert ours.p / 2 == pytest.approx(theirs.p_value, abs=0.03)


@pytest.mark.parametrize(("size", "grouped"), [(40, False), (8, False), (60, True)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(size: int, grouped: bool) -> None:
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(250):
        shift = np.repeat(generator.normal(0, 1, size // 4), 4) if grouped else np.zeros(size)
        before = generator.normal(0, 1, size)
        after = before + 0.5 + shift + generator.normal(0, 1, size)
        groups = [i // 4 for i in range(size)] if grouped else None
        found = compare(
            MEAN, per_case(list(before)), per_case(list(after)), groups=groups, resamples=400, seed=trial
        )
        held += found.low <= 0.5 <= found.high
    assert 0.91 <= held / 250 <= 0.99


def test_cases_of_one_group_are_not_counted_as_independent() -> None:
    before = per_case([0.0] * 40)
    after = per_case([float(i % 2) for i in range(10) for _ in range(4)])
    groups = [f"scenario {i}" for i in range(10) for _ in range(4)]
    alone, together = compare(MEAN, before, after), compare(MEAN, before, after, groups=groups)
    assert together.groups == 10
    assert together.cases == 40
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_groups_of_one_case_change_nothing() -> None:
    before, after = per_case([1.0, 2.0, 3.0, 5.0]), per_case([2.0, 2.0, 4.0, 9.0])
    alone, grouped = compare(MEAN, before, after), compare(MEAN, before, after, groups="abcd")
    assert (alone.low, alone.high, alone.p) == (grouped.low, grouped.high, grouped.p)


def test_the_same_seed_gives_the_same_interval_and_another_a_near_one() -> None:
    generator = np.random.default_rng(3)
    before, after = per_case(list(generator.normal(size=50))), per_case(list(generator.normal(1, size=50)))
    first = compare(MEAN, before, after, seed=4)
    assert first == compare(MEAN, before, after, seed=4)
    assert compare(MEAN, before, after, seed=5).low == pytest.approx(first.low, abs=0.1)


def test_few_groups_widen_the_interval_to_students() -> None:
    deltas = np.random.default_rng(0).normal(size=200_000)
    wide = interval(deltas, 6)[1]
    assert wide == pytest.approx(2.571 * math.sqrt(6 / 5), abs=0.06)
    assert interval(deltas, 100_000)[1] == pytest.approx(1.96, abs=0.03)


@pytest.mark.parametrize(
    ("better", "step", "verdict"),
    [
        (True, 1.0, "better"),
        (True, -1.0, "worse"),
        (False, -1.0, "better"),
        (False, 1.0, "worse"),
        (None, 1.0, "higher"),
        (None, -1.0, "lower"),
    ],
)
def test_the_verdict_knows_which_direction_is_good(better: bool | None, step: float, verdict: str) -> None:
    metric = Metric("score", MEAN.cases, ratio, "mean", higher_is_better=better)
    before = [float(i) for i in range(30)]
    after = [b + step + 0.1 * (i % 3) * step for i, b in enumerate(before)]
    assert compare(metric, per_case(before), per_case(after)).verdict == verdict


def test_an_interval_that_touches_zero_decides_nothing() -> None:
    before = per_case([0.0] * 12)
    touching = compare(MEAN, before, per_case([0.0] * 10 + [1.0] * 2))
    assert touching.low == 0
    assert touching.verdict == "unclear"


def test_equal_answers_are_no_difference() -> None:
    same = compare(MEAN, per_case([1.0, 2.0]), per_case([1.0, 2.0]))
    assert (same.verdict, same.delta, same.p) == ("same", 0.0, 1.0)
    assert same.words() == "no difference in any of the 2 cases"


def test_one_group_cannot_tell_and_has_no_interval() -> None:
    found = compare(MEAN, per_case([0.0, 1.0]), per_case([1.0, 3.0]), groups=["s", "s"])
    assert math.isnan(found.low)
    assert found.words() == "cannot tell with 2 cases in 1 group(s): add cases of other scenarios"


def test_about_so_many_more_cases_do_tell() -> None:
    generator = np.random.default_rng(2)
    noise = generator.normal(0, 1, 40)
    after = 0.2 + noise - noise.mean()
    small = compare(MEAN, per_case([0.0] * 40), per_case(list(after)))
    assert small.verdict == "unclear"
    assert small.needed is not None
    assert 140 <= small.needed <= 290
    told = 0
    for trial in range(20):
        size = small.needed
        more = generator.normal(0.2, 1, size)
        told += compare(MEAN, per_case([0.0] * size), per_case(list(more)), seed=trial).verdict == "better"
    assert told >= 13


def test_the_verdict_reads_as_a_sentence_in_both_languages() -> None:
    better = Comparison("BLEU", 10.0, 13.1, 3.1, 1.9, 4.4, 0.001, 200, 50, "", "better")
    assert better.words("en") == "better: BLEU +3.1 [1.9, 4.4]"
    assert better.words("zh") == "更好：BLEU +3.1 [1.9, 4.4]"
    unclear = Comparison("BLEU", 10.0, 11.0, 1.0, -0.5, 2.4, 0.2, 40, 40, "", "unclear", needed=170)
    assert unclear.words("en") == "cannot tell with 40 cases; about 170 would be needed"
    assert unclear.words("zh") == "仅凭 40 个样例无法判断；约需 170 个"
    close = Comparison("BLEU", 9.0, 9.0, 0.0, -1.4, 1.4, 1.0, 40, 40, "", "unclear", detectable=2.0)
    assert close.words("en") == "cannot tell with 40 cases: too close to call, a change of 2.0 would show"


def test_both_catalogues_fill_the_same_places() -> None:
    for key, texts in MESSAGES.items():
        english, chinese = ({name for _, name, _, _ in string.Formatter().parse(t) if name} for t in texts)
        assert english == chinese, key
        assert all(say(key, code, **dict.fromkeys(english, "x")) for code in REPORT_LANGUAGES)


def test_statistics_of_different_cases_are_refused() -> None:
    with pytest.raises(EvalError, match="same cases"):
        compare(MEAN, per_case([1.0]), per_case([1.0, 2.0]))
    with pytest.raises(EvalError, match="1 groups came for 2 cases"):
        compare(MEAN, per_case([1.0, 2.0]), per_case([1.0, 2.0]), groups=["a"])
