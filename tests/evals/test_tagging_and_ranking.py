"""Spans as seqeval counts them strictly; rankings as scikit-learn does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from dialoop.data.spans import Span, spans
from dialoop.errors import EvalError
from dialoop.evals.ranking import ndcg, recall_at, reciprocal_rank
from dialoop.evals.spans import span_f1, written_spans

tags = st.sampled_from(["O", "B-city", "I-city", "B-date", "I-date"])
pair = st.integers(1, 8).flatmap(
    lambda n: st.tuples(st.lists(tags, min_size=n, max_size=n), st.lists(tags, min_size=n, max_size=n))
)


@given(st.lists(pair, min_size=1, max_size=6))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_span_f1_equals_seqevals_strict_mode(pairs: list[tuple[list[str], list[str]]]) -> None:
    said, right = [s for s, _ in pairs], [r for _, r in pairs]
    if any(spans(each) for each in said) or any(spans(each) for each in right):
        theirs = f1_score(right, said, mode="strict", scheme=IOB2, average="micro", zero_division=0)
        assert span_f1().value(said, right) == pytest.approx(100 * theirs)
    else:
        assert span_f1().value(said, right) == 0


def test_a_span_without_a_beginning_is_none() -> None:
    assert spans(["I-city", "B-city", "I-city", "I-date", "B-date"]) == {
        Span(1, 3, "city"),
        Span(4, 5, "date"),
    }


def test_tags_in_words_are_read_and_another_number_of_them_finds_nothing() -> None:
    right = ["B-city O", "O B-date"]
    assert written_spans().value(["B-city O", "O B-date"], right) == 100
    assert written_spans().value(["B-city", "O B-date"], right) == pytest.approx(100 * 2 / 3)
    with pytest.raises(EvalError, match="a tag for every token"):
        span_f1().value([["O"]], [["O", "O"]])


rankings = st.integers(2, 8).flatmap(
    lambda n: st.tuples(st.permutations(range(n)), st.lists(st.integers(0, 3), min_size=n, max_size=n))
)


@given(st.lists(rankings, min_size=1, max_size=5), st.integers(1, 9))
def test_ndcg_equals_scikit_learns(cases: list[tuple[list[int], list[int]]], k: int) -> None:
    scores = [[float(score) for score in order] for order, _ in cases]
    grades = [[float(grade) for grade in given_] for _, given_ in cases]
    theirs = np.mean([ndcg_score([g], [s], k=k) for s, g in zip(scores, grades, strict=True)])
    assert ndcg(k).value(scores, grades) == pytest.approx(100 * float(theirs))


@given(st.permutations(range(6)), st.integers(0, 5))
def test_the_reciprocal_rank_of_one_relevant_candidate_is_its_average_precision(
    order: list[int], relevant: int
) -> None:
    grades = [float(i == relevant) for i in range(6)]
    scores = [float(score) for score in order]
    theirs = label_ranking_average_precision_score([grades], [scores])
    assert reciprocal_rank().value([scores], [grades]) == pytest.approx(100 * theirs)


def test_recall_counts_the_relevant_among_the_first() -> None:
    scores, grades = [[0.9, 0.8, 0.1, 0.7]], [[0.0, 1.0, 1.0, 0.0]]
    assert recall_at(1).value(scores, grades) == 0
    assert recall_at(2).value(scores, grades) == 50
    assert recall_at(4).value(scores, grades) == 100
    assert reciprocal_rank().value([[1.0]], [[0.0]]) == 0
