"""Contextual calibration, against the formula of its paper and by what it is for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dialoop.prompting.calibration import calibrated, probabilities

SHARES = arrays(np.float64, (4, 3), elements=st.floats(-40, 0)).map(probabilities)


@given(SHARES, SHARES)
def test_it_is_the_softmax_of_the_papers_affine_map(shares: np.ndarray, usual: np.ndarray) -> None:
    weights = np.diag(1 / usual.mean(0))  # Zhao et al. 2021, section 5: W = diag(p_cf)^-1, b = 0
    mapped = shares @ weights
    found = calibrated(shares, usual)
    assert np.allclose(found, mapped / mapped.sum(1, keepdims=True))
    assert np.array_equal(found.argmax(1), mapped.argmax(1))


def test_a_prompt_that_always_prefers_one_class_no_longer_decides() -> None:
    bias = np.array([[4.0, 0.0]])
    without = probabilities(bias)
    evidence = probabilities(bias + np.array([[-1.0, 1.0], [1.0, -1.0]]))
    assert list(evidence.argmax(1)) == [0, 0]
    assert list(calibrated(evidence, without).argmax(1)) == [1, 0]
    assert np.allclose(calibrated(without, without), 0.5)


def test_very_unlikely_texts_still_give_shares() -> None:
    assert np.allclose(probabilities(np.array([[-5000.0, -5000.0]])), 0.5)
