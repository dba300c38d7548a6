"""Classification: parity with scikit-learn, calibration, pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from dialoop.errors import EvalError
from dialoop.evals.classes import confusion
from dialoop.evals.labels import OTHER, accuracy, calibration_error, label_of, macro_f1
from dialoop.evals.picture import confusion_picture
from dialoop.evals.png import write_png

LABELS = ["refund", "退货", "parcel"]
cases = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30)


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(cases)
def test_the_matrix_and_the_accuracy_equal_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    said, right = [s for s, _ in pairs], [r for _, r in pairs]
    found = confusion(right, said)
    assert found.labels == tuple(sorted({*said, *right}))
    assert found.counts.tolist() == confusion_matrix(right, said, labels=list(found.labels)).tolist()
    assert accuracy().value(said, right) == pytest.approx(100 * accuracy_score(right, said))


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


def of_two(sure: Sequence[float]) -> list[tuple[float, float]]:
    """Log-probabilities of two options, the first being the likelier."""
    return [(math.log(p), math.log(1 - p)) for p in sure]


def graded(right: Sequence[bool]) -> list[tuple[float, float]]:
    return [(1.0, 0.0) if hit else (0.0, 1.0) for hit in right]


def test_calibration_is_the_textbooks() -> None:
    sure, right = [0.95, 0.92, 0.65, 0.62, 0.55], [True, False, True, True, False]
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in zip(sure, right, strict=True):
        bins.setdefault(int(np.ceil(confidence * 15)), []).append((confidence, hit))
    expected = sum(abs(sum(h - c for c, h in found)) for found in bins.values()) / 5
    metric = calibration_error()
    assert metric.value(of_two(sure), graded(right)) == pytest.approx(100 * expected)
    assert metric.value([(0.0, -800.0)], [(1.0, 0.0)]) == 0
    unnormalised = [tuple(3.0 + log for log in logs) for logs in of_two(sure)]
    assert metric.value(unnormalised, graded(right)) == pytest.approx(100 * expected)
    with pytest.raises(EvalError, match="2 scores came for 1 options"):
        metric.value([(0.0, -1.0)], [(1.0,)])


def test_calibration_can_be_resampled() -> None:
    metric = calibration_error(5)
    stats = metric.cases(of_two([0.6, 0.9, 0.5, 0.7]), graded([False, True, True, False]))
    assert metric.scores(np.array([stats[:2].sum(0), stats.sum(0)])) == pytest.approx(
        [metric.aggregate(stats[:2].sum(0)), metric.aggregate(stats.sum(0))]
    )


def test_the_picture_holds_the_largest_labels_and_can_be_a_png(tmp_path: Path) -> None:
    found = confusion(["a", "b", "a", "退货"], ["a", "b", "b", OTHER])
    assert found.largest(1).labels == ("a",)
    drawn = confusion_picture(found)
    assert "退货" in drawn
    assert write_png([drawn], tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
