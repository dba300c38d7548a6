"""Classification: parity with scikit-learn, calibration, pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from dialoop.errors import EvalError
from dialoop.evals.labels import OTHER, accuracy, calibration_error, confusion, label_of, macro_f1
from dialoop.evals.picture import confusion_picture

LABELS = ["refund", "退货", "parcel"]
cases = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30)


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(cases)
def test_the_report_equals_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    said, right = [s for s, _ in pairs], [r for _, r in pairs]
    found = confusion(said, right)
    known = sorted(set(right))
    mine = [label_of(s, known) for s in said]
    names = list(found.labels)
    assert found.counts.tolist() == confusion_matrix(right, mine, labels=names).tolist()
    theirs = precision_recall_fscore_support(right, mine, labels=names, zero_division=0)
    ours = found.report()
    for field, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [getattr(each, field) for each in ours] == pytest.approx(list(values))
    assert found.accuracy == pytest.approx(accuracy_score(right, mine))
    assert accuracy().value(said, right) == pytest.approx(100 * found.accuracy)


@given(cases)
def test_macro_f1_equals_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    said, right = [s for s, _ in pairs], [r for _, r in pairs]
    known = sorted(set(right))
    mine = [label_of(s, known) for s in said]
    theirs = f1_score(right, mine, labels=known, average="macro", zero_division=0)
    assert macro_f1(right).value(said, right) == pytest.approx(100 * theirs)


def test_a_label_is_known_whatever_its_case_width_and_end() -> None:
    assert label_of(" Refund. ", LABELS) == "refund"
    assert label_of("退货。", LABELS) == "退货"
    assert label_of("a refund", LABELS) == OTHER


def test_calibration_is_the_textbooks() -> None:
    sure, right = [0.95, 0.92, 0.65, 0.6, 0.2], [True, False, True, True, False]
    bins = {}
    for confidence, hit in zip(sure, right, strict=True):
        bins.setdefault(int(np.ceil(confidence * 15)), []).append((confidence, hit))
    expected = sum(abs(sum(h - c for c, h in found)) for found in bins.values()) / 5
    assert calibration_error().value(sure, right) == pytest.approx(100 * expected)
    assert calibration_error().value([1.0, 0.0], [True, False]) == 0
    with pytest.raises(EvalError, match="not from 0 to 1"):
        calibration_error().value([1.2], [True])


def test_calibration_can_be_resampled() -> None:
    metric = calibration_error(5)
    stats = metric.cases([0.1, 0.9, 0.5, 0.7], [False, True, True, False])
    assert metric.scores(np.array([stats[:2].sum(0), stats.sum(0)])) == pytest.approx(
        [metric.aggregate(stats[:2].sum(0)), metric.aggregate(stats.sum(0))]
    )


def test_the_picture_is_a_png_and_holds_the_largest_labels() -> None:
    found = confusion(["a", "b", "b", "?"], ["a", "b", "a", "退货"])
    assert confusion_picture(found).startswith(b"\x89PNG")
    assert found.labels == (*sorted({"a", "b", "退货"}), OTHER)
    assert found.largest(1).labels == ("a",)
