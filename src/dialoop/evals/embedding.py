"""How alike answers and references are in meaning: the cosine of vectors that an engine makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dialoop.evals.metrics import Metric, Stats, ratio, same_length
from dialoop.types import Embed

Vectors = NDArray[np.float64]
AT_ONCE = 64


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """From -1 to 1; 0 where a vector is all zeros."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0


async def vectors_of(engine: Embed, model: str, texts: Sequence[str]) -> Vectors:
    """(N, D), of length 1; texts that are equal are embedded once. An empty text has zeros."""
    unique = [text for text in dict.fromkeys(texts) if text.strip()]
    found: dict[str, tuple[float, ...]] = {}
    for start in range(0, len(unique), AT_ONCE):
        some = unique[start : start + AT_ONCE]
        found |= zip(some, (await engine.embed(model, some)).vectors, strict=True)
    size = len(next(iter(found.values()), (0.0,)))
    return np.array([found.get(text, (0.0,) * size) for text in texts])


def embedding_similarity(embed: Callable[[Sequence[str]], Vectors], model: str) -> Metric:
    """Mean cosine of answer and reference, times 100. embed: (N) texts -> (N, D)."""

    def cases(predictions: Sequence[str], references: Sequence[str]) -> Stats:
        same_length(predictions, references)
        both = embed([*predictions, *references])
        pairs = zip(both[: len(predictions)], both[len(predictions) :], strict=True)
        return np.array([[100 * cosine(p, r), 1.0] for p, r in pairs])

    return Metric("embedding similarity", cases, ratio, f"cosine|model:{model}")
