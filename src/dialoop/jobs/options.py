"""P(option | what is asked about a history), of every option after the same words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dialoop.errors import ContextLengthError
from dialoop.train.fit import without_oldest
from dialoop.types import Conversation, Score, Scored

Ask = Callable[[Conversation], Conversation]
"""A history -> what a model is asked about it."""


@dataclass(frozen=True, slots=True)
class ScoredOptions:
    """found: of each option.  shortened: whether the history lost its oldest exchanges."""

    found: tuple[Scored, ...]
    shortened: bool

    @property
    def read(self) -> int:
        """Tokens."""
        return sum(each.read for each in self.found)


async def score_options(
    engine: Score, model: str, history: Conversation, options: Sequence[str], ask: Ask
) -> ScoredOptions:
    """The same history for all options, without its oldest exchanges where any of them would not fit.

    Raises ContextLengthError where not even its last exchange does, and as `score` does.
    """
    shortened = False
    while True:
        try:
            return ScoredOptions(await engine.score(model, ask(history), options), shortened)
        except ContextLengthError:
            shorter = without_oldest(history)
            if shorter is None:
                raise
            history, shortened = shorter, True
