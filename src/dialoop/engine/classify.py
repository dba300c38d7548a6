"""Texts to the scores of a head."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from dialoop.models.heads import Headed, by_length, scores_of

Scores = list[list[float]]


class HeadRunning:
    """A model with a head in memory. step_tokens: of a forward, one text at least."""

    def __init__(self, headed: Headed, *, step_tokens: int) -> None:
        self._headed = headed
        self._step_tokens = step_tokens

    def classify(self, texts: Sequence[Sequence[int]]) -> Generator[None, None, Scores]:
        """Logits of each text; yields after each forward."""
        found: dict[int, list[float]] = {}
        for batch in by_length([len(text) for text in texts], range(len(texts)), self._step_tokens):
            scores = scores_of(self._headed, [texts[i] for i in batch], self._step_tokens)
            found |= {i: each.tolist() for i, each in zip(batch, scores, strict=True)}
            yield
        return [found[i] for i in range(len(texts))]
