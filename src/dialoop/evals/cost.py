"""What a model's answers cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dialoop.errors import EvalError


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of an answer given alone, tokens a second of one answer, and bytes of the weights.

    answers: how many were timed.
    """

    answers: int
    median_seconds: float
    p95_seconds: float
    tokens_per_second: float
    weight_bytes: int


def cost_of(seconds: Sequence[float], tokens: Sequence[int], weight_bytes: int) -> Cost:
    """seconds, tokens: one an answer. Raises EvalError for no answer."""
    if not seconds or len(seconds) != len(tokens):
        raise EvalError(
            f"{len(seconds)} times of {len(tokens)} answers came: time every answer, at least one"
        )
    median, high = np.quantile(seconds, [0.5, 0.95])
    return Cost(len(seconds), float(median), float(high), sum(tokens) / max(sum(seconds), 1e-9), weight_bytes)
