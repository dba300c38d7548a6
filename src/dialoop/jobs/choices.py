"""Histories, each with answers to choose from: the right one last, so that equal scores count against it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from dialoop.chat.pairs import history_text
from dialoop.config.heads import PairRecipe
from dialoop.data.language import language_of
from dialoop.evals.suites import task_named
from dialoop.evals.task import Case
from dialoop.jobs.choosing import Choosing
from dialoop.jobs.judging import Cases
from dialoop.train.head_answers import Answering
from dialoop.types import Conversation, Message, ModelRef, Pair

Scores = list[list[float]]
"""Of each history's answers."""


@dataclass(frozen=True, slots=True)
class Choices:
    """rows: histories with their right answers.  offered: of each, the answers to choose from."""

    rows: tuple[Pair, ...]
    offered: tuple[tuple[str, ...], ...]

    @property
    def texts(self) -> tuple[list[str], tuple[tuple[str, ...], ...]]:
        """The histories as a scorer reads them, and the answers."""
        return [history_text(row.history) for row in self.rows], self.offered

    @property
    def languages(self) -> list[str]:
        """Of each history with its answer."""
        return [_language(row) for row in self.rows]

    @property
    def grades(self) -> Scores:
        """1 for the right answer, 0 for the others."""
        return [[0.0] * (len(answers) - 1) + [1.0] for answers in self.offered]

    def by_head(self, model: Answering) -> Scores:
        """A scorer's P(answer fits history)."""
        asked, offered = self.texts
        pairs = [(text, answer) for text, answers in zip(asked, offered, strict=True) for answer in answers]
        return self._parted(model.fits(pairs))

    def by_likelihood(self, ref: ModelRef) -> Scores:
        """The mean log-probability that a decoder gives the answers' tokens; a history is read once."""
        asked = tuple(
            Case(row.history, row.answer, language, "", f"{place}", 0, offered, tuple(grades))
            for place, (row, language, offered, grades) in enumerate(
                zip(self.rows, self.languages, self.offered, self.grades, strict=True)
            )
        )
        with closing(Choosing(ref, task_named("selection"), lambda *_: None)) as model:
            return [list(outcome.scores or ()) for outcome in model.outcomes(Cases(asked, ()))]

    def _parted(self, scores: Sequence[float]) -> Scores:
        rest = iter(scores)
        return [list(islice(rest, len(answers))) for answers in self.offered]


def choices_of(recipe: PairRecipe, test: Sequence[Pair]) -> Choices:
    """`max_cases` of the test rows whose answer fits, each beside answers of others in the same language."""
    right = _drawn([row for row in test if row.fits], recipe.max_cases, recipe.train.seed)
    chance = np.random.default_rng(recipe.train.seed)
    known: dict[str, list[str]] = defaultdict(list)
    for row in right:
        known[_language(row)].append(row.answer)
    pools = {language: sorted(set(answers)) for language, answers in known.items()}
    offered = tuple(_beside(row.answer, pools[_language(row)], recipe.candidates, chance) for row in right)
    return Choices(tuple(right), offered)


def _beside(answer: str, known: Sequence[str], count: int, chance: np.random.Generator) -> tuple[str, ...]:
    """Others that are not the same text, then the right answer."""
    drawn = [known[i] for i in chance.permutation(len(known))[:count]]
    return (*[each for each in drawn if each != answer][: count - 1], answer)


def _language(row: Pair) -> str:
    return str(row.history.metadata.get("language") or language_of(_answered(row.history, row.answer)))


def _drawn(rows: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    return [rows[i] for i in sorted(np.random.default_rng(seed).permutation(len(rows))[:count])]


def _answered(history: Conversation, text: str) -> Conversation:
    return replace(history, messages=(*history.messages, Message("assistant", text)))
