"""A model with a head for words under test: its tags, with spaces between."""

from __future__ import annotations

import sys
import time

from dialoop.evals.cost import Cost, cost_of
from dialoop.evals.task import Outcome
from dialoop.jobs.judging import TIMED_ANSWERS, Cases, Done
from dialoop.train.head_answers import Answering
from dialoop.train.heads import longest_text
from dialoop.types import Conversation, ModelRef


class Tagging:
    """Tags the words of a case's last turn; words are what stands between spaces."""

    def __init__(self, ref: ModelRef, on_done: Done) -> None:
        self._model = Answering.load(ref.base, longest_text(ref.base, sys.maxsize))
        self._on_done = on_done

    def close(self) -> None:
        """Nothing is held."""

    def outcomes(self, chosen: Cases) -> tuple[Outcome, ...]:
        """Of the asked cases."""
        said, _ = self._model.tags_for([_words(chosen.ask(case)) for case in chosen.asked])
        self._on_done("tagging", len(said), len(said))
        return tuple(Outcome(case, " ".join(tags)) for case, tags in zip(chosen.asked, said, strict=True))

    def cost(self, chosen: Cases) -> Cost:
        """Of some of the cases, tagged one by one; a first one warms up."""
        step = max(1, len(chosen.asked) // TIMED_ANSWERS)
        some = [_words(chosen.ask(case)) for case in chosen.asked[::step][:TIMED_ANSWERS]]
        seconds = []
        for words in [some[0], *some]:
            begun = time.perf_counter()
            self._model.tags_for([words])
            seconds.append(time.perf_counter() - begun)
        weights = self._model.headed.whole.parameters()
        size = sum(weight.numel() * weight.element_size() for weight in weights)
        return cost_of(seconds[1:], [*map(len, some)], size)


def _words(asked: Conversation) -> list[str]:
    return asked.messages[-1].content.split()
