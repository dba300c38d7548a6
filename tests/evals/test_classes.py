"""Reports of classes and spans are those of scikit-learn and seqeval."""

from __future__ import annotations

import random

import pytest
from seqeval.metrics import classification_report as spans_by_seqeval
from seqeval.scheme import IOB2
from sklearn.metrics import classification_report

from dialoop.data.spans import repaired
from dialoop.evals.baselines import bm25_ranking, majority, memorised_tags, tfidf_regression
from dialoop.evals.classes import class_report, span_report
from dialoop.evals.nearest import features
from dialoop.types import Labelled

NAMES = ["a", "b", "c", "d"]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.mark.parametrize("seed", range(3))
def test_a_report_has_the_numbers_of_scikit_learns(seed: int) -> None:
    draw = random.Random(seed)
    gold, found = ([draw.choice(NAMES[: 3 + i]) for _ in range(40)] for i in (0, 1))
    mine = class_report(gold, found)
    theirs = classification_report(gold, found, output_dict=True, zero_division=0)
    for each in mine.classes:
        row = theirs[each.name]
        got = (each.precision, each.recall, each.f1, each.support)
        assert got == pytest.approx((row["precision"], row["recall"], row["f1-score"], row["support"]))
    assert mine.accuracy == pytest.approx(theirs["accuracy"])
    for kind in ("macro", "weighted"):
        assert mine.average(kind).f1 == pytest.approx(theirs[f"{kind} avg"]["f1-score"])
    assert mine.average("micro").f1 == pytest.approx(mine.accuracy)
    assert "macro avg" in mine.to_text()


@pytest.mark.parametrize("seed", range(3))
def test_spans_are_counted_as_seqeval_does_where_it_is_strict(seed: int) -> None:
    draw = random.Random(seed)
    gold, found = ([repaired([draw.choice(TAGS) for _ in range(9)]) for _ in range(12)] for _ in range(2))
    mine = span_report(gold, found)
    theirs = spans_by_seqeval(
        [list(t) for t in gold], [list(t) for t in found], mode="strict", scheme=IOB2, output_dict=True
    )
    for each in (*mine.classes, *mine.averages):
        row = theirs[each.name]
        assert (each.precision, each.recall, each.f1, each.support) == pytest.approx(
            (row["precision"], row["recall"], row["f1-score"], row["support"])
        )


def test_a_span_with_one_wrong_end_does_not_count() -> None:
    gold, found = [("B-PER", "I-PER", "O", "B-LOC")], [("B-PER", "O", "O", "B-LOC")]
    report = span_report(gold, found)
    assert (report.average("micro").f1, report.accuracy) == (0.5, 0.75)


def test_nothing_found_is_no_error() -> None:
    assert span_report([("B-PER",)], [("O",)]).average("micro").f1 == 0
    assert class_report(["a"], ["b"]).accuracy == 0


ROWS = [
    Labelled(text, label)
    for label, texts in {
        "return": (
            "I want to return the shoes",
            "can I return a coat",
            "我想退货",
            "怎么退货呢",
            "return it please",
        ),
        "track": ("where is my parcel", "track my parcel please", "我的包裹在哪里", "包裹到哪里了"),
    }.items()
    for text in texts
]


def test_the_regression_learns_words_of_both_languages() -> None:
    assert tfidf_regression(ROWS, ["please return my hat", "我要退货", "my parcel?", "包裹在哪"]) == [
        "return", "return", "track", "track",
    ]  # fmt: skip


def test_the_commonest_class_is_said_of_all() -> None:
    assert majority(ROWS, 2) == ["return", "return"]


def test_a_chinese_character_is_a_term_and_so_is_a_pair_of_them() -> None:
    assert set(features("退货 Hat")) == {"退", "货", "hat", "退 货", "货 hat"}


def test_the_candidate_with_the_same_words_is_ranked_first() -> None:
    train = [row.text for row in ROWS]
    ((coat, parcel, other),) = bm25_ranking(
        train, ["my parcel"], [["return the coat", "track my parcel", "hm"]]
    )
    assert parcel > coat == other == 0


def test_a_words_commonest_tag_is_remembered() -> None:
    train = [(("Anna", "ran"), ("B-PER", "O")), (("Anna",), ("B-PER",)), (("Anna",), ("O",))]
    assert memorised_tags(train) == {"Anna": "B-PER", "ran": "O"}
