"""The nearest-neighbour baseline: the answer that followed the most similar training history.

Similarity is BM25 (Robertson and Zaragoza 2009) over words and pairs of neighbouring words, Chinese
characters being words; earlier turns count for less.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dialoop.errors import EvalError
from dialoop.evals.task import Case
from dialoop.evals.words import words
from dialoop.types import Conversation, Message

K1, B = 1.2, 0.75
EARLIER = 0.4


@dataclass(frozen=True, slots=True)
class Match:
    """The training answer found, its position among the training cases (-1: none), and its BM25 score."""

    answer: str
    position: int
    score: float


@dataclass(frozen=True, slots=True)
class Nearest:
    """An inverted index over training histories: term -> (positions, weights)."""

    answers: tuple[str, ...]
    postings: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]

    def match(self, history: Conversation) -> Match:
        """The best training case; the earliest of equals, and an empty answer where no word is shared."""
        scores = self.scores(history)
        best = int(scores.argmax())
        if scores[best] <= 0:
            return Match("", -1, 0.0)
        return Match(self.answers[best], best, float(scores[best]))

    def scores(self, history: Conversation) -> NDArray[np.float64]:
        """BM25 of every training case, shape (n,); 0 where no word is shared."""
        scores = np.zeros(len(self.answers))
        for term, weight in terms(history.messages).items():
            if term in self.postings:
                positions, weights = self.postings[term]
                scores[positions] += weight * weights
        return scores

    def generate(self, histories: Sequence[Conversation]) -> tuple[str, ...]:
        """Answers of the best training cases: fits `evals.task.run`."""
        return tuple(self.match(history).answer for history in histories)


def index(training: Iterable[Case]) -> Nearest:
    """Index the histories of training cases. Raises EvalError for no case."""
    answers: list[str] = []
    entries: dict[str, list[tuple[int, float]]] = defaultdict(list)
    lengths: list[float] = []
    for position, case in enumerate(training):
        answers.append(case.reference)
        counted = terms(case.history.messages)
        lengths.append(sum(counted.values()))
        for term, count in counted.items():
            entries[term].append((position, count))
    if not answers:
        raise EvalError("no training case came for the nearest neighbours: give training conversations")
    norms = K1 * (1 - B + B * np.array(lengths) / max(float(np.mean(lengths)), 1e-9))
    return Nearest(tuple(answers), {term: _weighted(found, norms) for term, found in entries.items()})


def _weighted(
    found: list[tuple[int, float]], norms: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """BM25 weights of one term in the histories that hold it."""
    positions = np.array([position for position, _ in found], dtype=np.int64)
    counts = np.array([count for _, count in found])
    rarity = np.log1p((len(norms) - len(found) + 0.5) / (len(found) + 0.5))
    return positions, rarity * counts * (K1 + 1) / (counts + norms[positions])


def terms(messages: Sequence[Message]) -> Counter[str]:
    """Weighted words and word pairs of a history: the last turn counts 1, each earlier one 0.4 of the next.

    System turns are left out: they are the same in every history of a data set.
    """
    counted: Counter[str] = Counter()
    weight = 1.0
    for message in reversed([m for m in messages if m.role not in ("system", "developer")]):
        for term in features(message.content):
            counted[term] += weight  # type: ignore[assignment]
        weight *= EARLIER
        if weight < 0.01:
            break
    return counted


def features(text: str) -> list[str]:
    """Words and pairs of neighbouring ones; a Chinese character is a word."""
    tokens = words(text)
    return [*tokens, *(f"{a} {b}" for a, b in pairwise(tokens))]
