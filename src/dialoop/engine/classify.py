"""Texts to the scores of a head, and sentences to the tags of their words."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from dialoop.models.crf import Crf
from dialoop.models.heads import Headed, by_length, scores_of

Scores = list[list[float]]
Tags = list[tuple[list[int], list[float]]]
"""Of each sentence, the numbers of its tags and their probabilities."""


class HeadRunning:
    """A model with a head in memory. step_tokens: of a forward, one text at least."""

    def __init__(self, headed: Headed, *, step_tokens: int, crf: Crf | None = None) -> None:
        self._headed, self._crf = headed, crf
        self._step_tokens = step_tokens

    def classify(self, texts: Sequence[Sequence[int]]) -> Generator[None, None, Scores]:
        """Logits of each text; yields after each forward."""
        found: dict[int, list[float]] = {}
        for batch in self._batches(texts):
            scores = scores_of(self._headed, [texts[i] for i in batch], self._step_tokens)
            found |= {i: each.tolist() for i, each in zip(batch, scores, strict=True)}
            yield
        return [found[i] for i in range(len(texts))]

    def tag(
        self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
    ) -> Generator[None, None, Tags]:
        """The tags at the places of each text; yields after each forward."""
        found: dict[int, tuple[list[int], list[float]]] = {}
        for batch in self._batches(texts):
            scores = scores_of(self._headed, [texts[i] for i in batch], self._step_tokens)
            found |= {i: self._tags(each[list(places[i])]) for i, each in zip(batch, scores, strict=True)}
            yield
        return [found[i] for i in range(len(texts))]

    def _batches(self, texts: Sequence[Sequence[int]]) -> list[list[int]]:
        return by_length([len(text) for text in texts], range(len(texts)), self._step_tokens)

    def _tags(self, words: Tensor) -> tuple[list[int], list[float]]:
        """words: (L, K)."""
        shares = words.softmax(-1) if self._crf is None else self._crf.marginals(words)
        best = words.argmax(-1).tolist() if self._crf is None else self._crf.best(words)
        return best, shares[torch.arange(len(best)), best].tolist()
