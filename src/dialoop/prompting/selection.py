"""Which examples stand before a question: by chance, by nearness, unlike each other, or from every class."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dialoop.config.prompts import FewShotSettings
from dialoop.errors import ConfigError
from dialoop.evals.nearest import Nearest, features, index
from dialoop.evals.task import Case
from dialoop.types import Conversation

Vector = NDArray[np.float32]
Fits = Callable[[Sequence[Conversation]], bool]
"""Whether these examples may be shown together."""


@dataclass(frozen=True)
class Pool:
    """Examples to choose from, dialogues that end with a right answer.

    vectors: (n, width) of length 1, of what each example is asked; None where no model embedded them.
    """

    examples: tuple[Conversation, ...]
    vectors: Vector | None = field(default=None, compare=False)

    def chosen(
        self,
        settings: FewShotSettings,
        question: Conversation,
        vector: Vector | None = None,
        fits: Fits = lambda examples: True,
    ) -> tuple[Conversation, ...]:
        """The examples for a question, in the order in which they are shown.

        vector: (width,) the question's own, where the selection needs vectors.  fits: those that the rest
        still fits with are taken, best first.  Raises ConfigError where vectors are needed and missing.
        """
        if settings.needs_vectors and (self.vectors is None or vector is None):
            raise ConfigError(
                f"few_shot.select = {settings.select!r} compares vectors, and no model embeds here: name one "
                f"that does, or select by bm25"
            )
        kept: list[int] = []
        for place in self._ranked(settings, question, vector):
            if len(kept) == (len(self.examples) if settings.select == "all" else settings.count):
                break
            if fits([self.examples[i] for i in (*kept, place)]):
                kept.append(place)
        return tuple(self.examples[i] for i in _ordered(kept, settings))

    def _ranked(self, settings: FewShotSettings, question: Conversation, vector: Vector | None) -> list[int]:
        """Places, the best first."""
        if settings.select == "all":
            return list(range(len(self.examples)))
        if settings.select == "random":
            return random.Random(settings.seed).sample(range(len(self.examples)), len(self.examples))
        if settings.select == "bm25":
            return _descending(self._words.scores(question))
        near = self._nearness(settings, question, vector)
        if settings.select == "mmr":
            return self._unlike(near, settings)
        if settings.select == "balanced":
            return self._in_turns(near)
        return _descending(near)

    def _nearness(self, settings: FewShotSettings, question: Conversation, vector: Vector | None) -> Vector:
        """(n,) cosines to the question."""
        if settings.needs_vectors:
            assert self.vectors is not None
            assert vector is not None
            return np.asarray(self.vectors @ vector, dtype=np.float32)
        analyser, matrix = self._terms
        asked = analyser.transform([asked_text(question)])
        return np.asarray((matrix @ asked.T).todense(), dtype=np.float32)[:, 0]

    def _unlike(self, near: Vector, settings: FewShotSettings) -> list[int]:
        """Maximal marginal relevance: each next one is near, and unlike those before it."""
        left, kept = list(range(len(near))), list[int]()
        closest = np.zeros(len(near), dtype=np.float32)
        while left and len(kept) < _tried(settings, len(near)):
            gain = (1 - settings.diversity) * near - settings.diversity * closest
            best = max(left, key=lambda place: (gain[place], -place))
            left.remove(best)
            kept.append(best)
            closest = np.maximum(closest, self._likeness(best, settings))
        return kept

    def _likeness(self, place: int, settings: FewShotSettings) -> Vector:
        """(n,) cosines between one example and all."""
        if settings.needs_vectors:
            assert self.vectors is not None
            return np.asarray(self.vectors @ self.vectors[place], dtype=np.float32)
        matrix = self._terms[1]
        return np.asarray((matrix @ matrix[place].T).todense(), dtype=np.float32)[:, 0]

    def _in_turns(self, near: Vector) -> list[int]:
        """The nearest of every class, then the second of every class, and so on; nearer classes first."""
        seen: dict[str, int] = {}
        turns: list[tuple[int, int, int]] = []
        for place in _descending(near):
            label = label_of(self.examples[place])
            turns.append((seen.get(label, 0), len(turns), place))
            seen[label] = seen.get(label, 0) + 1
        return [place for *_, place in sorted(turns)]

    @cached_property
    def _words(self) -> Nearest:
        return index(
            Case(example.history, example.answer, "", "", str(i), 0)
            for i, example in enumerate(self.examples)
        )

    @cached_property
    def _terms(self) -> tuple[Any, Any]:
        """A TF-IDF vectoriser, and the (n, terms) rows of the examples, of length 1."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        analyser = TfidfVectorizer(analyzer=features, sublinear_tf=True)
        return analyser, analyser.fit_transform([asked_text(example.history) for example in self.examples])


def asked_text(history: Conversation) -> str:
    """What is asked, as one text: the last user turn."""
    return next((m.content for m in reversed(history.messages) if m.role == "user"), "")


def label_of(example: Conversation) -> str:
    """The class of an example: the intent in its metadata, or its answer."""
    return str(example.metadata.get("intent") or example.answer)


def _tried(settings: FewShotSettings, size: int) -> int:
    """How many are ranked: more than are shown, where some may not fit."""
    return size if settings.max_tokens is None and settings.count >= size else min(size, 4 * settings.count)


def _descending(scores: NDArray[Any]) -> list[int]:
    return [int(place) for place in np.argsort(-scores, kind="stable")]


def _ordered(kept: Sequence[int], settings: FewShotSettings) -> list[int]:
    if settings.order == "given" or settings.select == "all":
        return sorted(kept)
    return list(reversed(kept)) if settings.order == "nearest_last" else list(kept)
