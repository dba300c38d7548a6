"""Successive halving: all are asked a little, the better half is asked more, on the same questions.

Karnin et al. 2013 (Almost optimal exploration in multi-armed bandits); all arms answer the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dialoop.errors import ConfigError

A = TypeVar("A")
Scores = Sequence[float]
Ask = Callable[[int, int], Scores]
"""(arm, questions) -> its score on each of the first so many questions, the higher the better."""


@dataclass(frozen=True, slots=True)
class Rung:
    """arms: that were asked, the best first.  means: their scores.  questions: that each of them answered."""

    arms: tuple[int, ...]
    means: tuple[float, ...]
    questions: int


LEAST, FIRST = 5, 0.75
"""Questions of the first rung, where they cost at most this share of the budget: with two, one in eight
prompts that are right four times as often lost."""


def plan(arms: int, budget: int, questions: int) -> list[tuple[int, int]]:
    """(arms, questions) of each rung, halving the arms: an equal share of the budget for each, and more for
    the first where it would ask fewer than LEAST.

    budget: questions put to arms, all together; what a rung asked is not asked again in the next. Raises
    ConfigError where the budget is too small to tell any two arms apart.
    """
    rungs: list[tuple[int, int]] = []
    left, asked = arms, 0
    count = max(1, math.ceil(math.log2(max(arms, 2))))
    first = max(budget / count, min(LEAST * arms, FIRST * budget))
    later = (budget - first) / max(1, count - 1)
    while True:
        asked = min(questions, asked + int((later if rungs else first) / left))
        rungs.append((left, asked))
        if left <= 2:
            break
        left = math.ceil(left / 2)
    if rungs[0][1] < 1:
        raise ConfigError(
            f"a budget of {budget} questions is too small for {arms} candidates: at least "
            f"{arms * len(rungs)} are needed, or fewer candidates"
        )
    return rungs


def halve(arms: int, budget: int, questions: int, ask: Ask) -> list[Rung]:
    """The rungs, the last with the winner first."""
    left, found = list(range(arms)), list[Rung]()
    for many, asked in plan(arms, budget, questions):
        left = left[:many]
        scores = {arm: ask(arm, asked) for arm in left}
        means = {arm: sum(each) / len(each) for arm, each in scores.items()}
        left.sort(key=lambda arm: (-means[arm], arm))
        found.append(Rung(tuple(left), tuple(means[arm] for arm in left), asked))
    return found
