"""P(class | prompt), freed from what a prompt says without a question.

Contextual calibration (Zhao et al. 2021, arXiv:2102.09690): what the prompt prefers where the question has no
content is divided out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]
CONTENT_FREE = ("N/A", "[MASK]", "")
"""Questions without content, as in the paper's section 5."""


def probabilities(log_likelihoods: Probabilities) -> Probabilities:
    """(..., classes) log P(class's text | prompt), in nats -> shares of the classes among each other."""
    best = log_likelihoods.max(-1, keepdims=True)
    raw = np.exp(log_likelihoods - best)
    return np.asarray(raw / raw.sum(-1, keepdims=True))


def calibrated(shares: Probabilities, without_content: Probabilities) -> Probabilities:
    """(n, classes) shares, and (m, classes) those of questions without content -> (n, classes).

    The paper's q = softmax(W p) with W = diag(mean of the m)^-1, which ranks the classes by p / mean; given
    as shares that sum to 1.
    """
    usual = without_content.mean(0)
    freed = shares / np.maximum(usual, np.finfo(np.float64).tiny)
    return np.asarray(freed / freed.sum(-1, keepdims=True))
