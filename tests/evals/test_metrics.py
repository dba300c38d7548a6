"""Metrics: parity with sacrebleu and rouge-score, Chinese, bounds."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from dialoop.errors import EvalError
from dialoop.evals import metrics
from dialoop.evals.metrics import Metric
from dialoop.evals.suites import REPLY
from dialoop.evals.words import words

ENGLISH = [
    "the",
    "a",
    "order",
    "parcel",
    "is",
    "was",
    "not",
    "late",
    "on",
    "its",
    "way",
    "tomorrow",
    ",",
    ".",
    "please",
    "refund",
]
CHINESE = list("您的订单包裹已经发货，请耐心等待明天送达退款。")


def corpus(seed: int, cases: int, vocabulary: list[str], joint: str) -> tuple[list[str], list[str]]:
    generator = random.Random(seed)
    references = [generator.choices(vocabulary, k=generator.randint(1, 14)) for _ in range(cases)]
    predictions = [
        [w if generator.random() < 0.6 else generator.choice(vocabulary) for w in r] for r in references
    ]
    return [joint.join(p) for p in predictions], [joint.join(r) for r in references]


@pytest.mark.parametrize("cases", [1, 2, 3, 40])
@pytest.mark.parametrize("seed", range(4))
def test_bleu_equals_sacrebleus_in_both_languages(seed: int, cases: int) -> None:
    english = corpus(seed, cases, ENGLISH, " ")
    chinese = corpus(seed, cases, CHINESE, "")
    assert metrics.bleu("en").value(*english) == pytest.approx(
        sacrebleu.corpus_bleu(english[0], [english[1]]).score, abs=1e-9
    )
    assert metrics.bleu("zh").value(*chinese) == pytest.approx(
        sacrebleu.corpus_bleu(chinese[0], [chinese[1]], tokenize="zh").score, abs=1e-9
    )


@pytest.mark.parametrize("cases", [1, 40])
@pytest.mark.parametrize("seed", range(4))
def test_chrf_equals_sacrebleus(seed: int, cases: int) -> None:
    for predictions, references in (corpus(seed, cases, ENGLISH, " "), corpus(seed, cases, CHINESE, "")):
        expected = sacrebleu.corpus_chrf(predictions, [references]).score
        assert metrics.chrf().value(predictions, references) == pytest.approx(expected, abs=1e-9)


def test_statistics_of_every_case_equal_sacrebleus_over_many_cases() -> None:
    english, chinese = corpus(5, 1500, ENGLISH, " "), corpus(6, 1500, CHINESE, "")
    for metric, scorer, (said, right) in (
        (metrics.bleu("en"), BLEU(force=True), english),
        (metrics.bleu("zh"), BLEU(tokenize="zh", force=True), chinese),
        (metrics.chrf(), CHRF(), english),
        (metrics.chrf(), CHRF(), chinese),
    ):
        theirs = np.array(scorer._extract_corpus_statistics(said, [right]), dtype=float)
        assert (metric.cases(said, right) == theirs).all()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=4))
def test_bleu_and_chrf_equal_sacrebleus_on_any_text(pairs: list[tuple[str, str]]) -> None:
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    bleu = sacrebleu.corpus_bleu(predictions, [references], tokenize="zh").score
    chrf = sacrebleu.corpus_chrf(predictions, [references]).score
    assert metrics.bleu("zh").value(predictions, references) == pytest.approx(bleu, abs=1e-9)
    assert metrics.chrf().value(predictions, references) == pytest.approx(chrf, abs=1e-9)


CUT = st.lists(st.sampled_from([*"a5.,-&;\n\t \u3000(好", "&lt;", "&amp;", "<skipped>"]), max_size=14).map(
    "".join
)


@settings(max_examples=200)
@given(st.lists(st.tuples(CUT, CUT), min_size=1, max_size=4), st.sampled_from(["en", "zh"]))
def test_bleu_cuts_numbers_stops_and_entities_as_sacrebleu_does(
    pairs: list[tuple[str, str]], language: str
) -> None:
    said, right = [p for p, _ in pairs], [r for _, r in pairs]
    scorer = BLEU(tokenize="zh" if language == "zh" else "13a", force=True)
    theirs = np.array(scorer._extract_corpus_statistics(said, [right]), dtype=float)
    assert (metrics.bleu(language).cases(said, right) == theirs).all()


class Words:
    """Our words, for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


SPOKEN = st.text(st.sampled_from("aáΣσb 好的。-\u0301\u3000"), max_size=20)


@settings(max_examples=100)
@given(st.lists(st.tuples(SPOKEN, SPOKEN), min_size=1, max_size=4))
def test_rouge_and_lengths_of_many_texts_are_of_the_words_of_each(pairs: list[tuple[str, str]]) -> None:
    said, right = [p for p, _ in pairs], [r for _, r in pairs]
    kinds: list[metrics.RougeKind] = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(list(kinds), tokenizer=Words())
    theirs = [scorer.score(r, s) for s, r in zip(said, right, strict=True)]
    for kind in kinds:
        ours = metrics.rouge(kind).cases(said, right)[:, 0]
        assert ours == pytest.approx([100 * each[kind].fmeasure for each in theirs])
    lengths = [[len(words(s)), len(words(r))] for s, r in zip(said, right, strict=True)]
    assert metrics.length_ratio().cases(said, right).tolist() == lengths


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_equals_rouge_scores_own_on_english(kind: metrics.RougeKind) -> None:
    predictions, references = corpus(3, 40, ENGLISH, " ")
    scorer = RougeScorer([kind])
    expected = np.mean(
        [scorer.score(r, p)[kind].fmeasure for p, r in zip(predictions, references, strict=True)]
    )
    assert metrics.rouge(kind).value(predictions, references) == pytest.approx(100 * float(expected))


def test_rouge_sees_chinese() -> None:
    prediction, reference = ["您的包裹明天送达"], ["您的包裹后天送达"]
    assert RougeScorer(["rougeL"]).score(reference[0], prediction[0])["rougeL"].fmeasure == 0
    assert metrics.rouge("rougeL").value(prediction, reference) == pytest.approx(100 * 7 / 8)
    assert metrics.rouge("rouge2").value(prediction, reference) == pytest.approx(100 * 5 / 7)


def test_signatures_name_tokenizers_and_versions() -> None:
    assert "tok:zh" in metrics.bleu("zh").signature
    assert "tok:13a" in metrics.bleu("en").signature
    assert f"version:{sacrebleu.__version__}" in metrics.chrf().signature
    assert "tok:cjk-char+word" in metrics.rouge("rougeL").signature


def test_exact_match_folds_case_width_and_space() -> None:
    assert metrics.exact_match().value(["Ｏk  then", "no", "好"], ["OK then", "nope", "好"]) == pytest.approx(
        200 / 3
    )


def test_the_length_ratio_counts_words_and_characters() -> None:
    assert metrics.length_ratio().value(["one two", "好的"], ["one", "好"]) == 2.0
    assert math.isnan(metrics.length_ratio().value(["one"], ["..."]))


def test_distinct_is_different_over_all_ngrams_of_all_answers() -> None:
    answers = ["a b a", "a b", "c"]
    assert metrics.distinct(1).value(answers, answers) == pytest.approx(3 / 6)
    assert metrics.distinct(2).value(answers, answers) == pytest.approx(2 / 3)


def test_perplexity_is_the_exponent_of_the_mean_negative_log_likelihood() -> None:
    assert metrics.perplexity().value([-2.0, -4.0], [1, 2]) == pytest.approx(math.exp(2))
    assert metrics.perplexity().higher_is_better is False


def test_a_log_likelihood_that_is_no_logarithm_is_refused() -> None:
    with pytest.raises(EvalError, match="log-likelihood is nan"):
        metrics.perplexity().value([-1.0, math.nan], [1, 1])


def test_unequal_numbers_of_predictions_and_references_are_refused() -> None:
    with pytest.raises(EvalError, match="2 predictions came for 1 references"):
        metrics.bleu("en").value(["a", "b"], ["a"])


TEXT_METRICS = [m for m in REPLY.metrics("zh", []) if m.reads == "text"]


@pytest.mark.parametrize("metric", TEXT_METRICS, ids=lambda m: m.name)
@settings(max_examples=15)
@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_a_perfect_answer_scores_as_much_as_can_be(metric: Metric, texts: list[str]) -> None:
    perfect = metric.value(texts, texts)
    other = metric.value([text[::-1] for text in texts], texts)
    if metric.higher_is_better:
        assert -1e-9 <= other <= perfect + 1e-9 <= 100 + 1e-6
    elif metric.higher_is_better is False:
        assert 0 <= perfect <= 100
    elif metric.name == "length ratio":
        assert math.isnan(perfect) or perfect == pytest.approx(1)
    else:
        assert math.isnan(perfect) or 0 < perfect <= 1 + 1e-9


@pytest.mark.parametrize("metric", TEXT_METRICS, ids=lambda m: m.name)
def test_scores_of_many_sums_equal_scores_of_each(metric: Metric) -> None:
    stats = metric.cases(*corpus(5, 12, CHINESE, ""))
    sums = np.array([stats[:4].sum(0), stats[4:].sum(0), stats.sum(0)])
    assert metric.scores(sums) == pytest.approx([metric.aggregate(total) for total in sums])


def test_bleu_and_chrf_never_mix_languages() -> None:
    assert {"BLEU", "chrF"}.isdisjoint(m.name for m in REPLY.metrics("all", []))
    assert {"BLEU", "chrF", "perplexity"} <= {m.name for m in REPLY.metrics("zh", [])}
