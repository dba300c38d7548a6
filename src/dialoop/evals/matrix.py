"""Prompts and models side by side on the same cases: scores with intervals, who leads, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dialoop.errors import EvalError
from dialoop.evals.compare import Comparison, compare
from dialoop.evals.cost import Cost
from dialoop.evals.families import corrected
from dialoop.evals.report import in_order, stats_of
from dialoop.evals.scores import Score, score_of
from dialoop.evals.suites import Task
from dialoop.evals.task import Outcome

Standing = Literal["best", "even", "behind"]
CHOSEN = ("accuracy", "recall@1")
"""Metrics whose value by blind chance is known."""


@dataclass(frozen=True, slots=True)
class Side:
    """One prompt with one model. tokens: of a question as the model reads it, on average; None = unknown."""

    prompt: str
    model: str
    outcomes: tuple[Outcome, ...]
    cost: Cost | None = None
    tokens: float | None = None

    @property
    def name(self) -> str:
        """Both."""
        return f"{self.prompt} x {self.model}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A side's score in one column, and how it stands to the column's best.

    behind: from the best to this one, corrected for the number of sides; None of the best itself.
    """

    score: Score
    standing: Standing
    behind: Comparison | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A metric on the cases of a language; cells in the order of the sides."""

    language: str
    metric: str
    higher_is_better: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """cases: that every side answered.  chance: percent that blind choices get right; None = free answers."""

    task: str
    sides: tuple[Side, ...]
    columns: tuple[Column, ...]
    cases: int
    chance: float | None = None

    @property
    def shortened(self) -> int:
        """Histories that lost their oldest exchanges for some side, to fit into its context."""
        return len({o.case.id for side in self.sides for o in side.outcomes if o.shortened})

    def by_chance(self, cell: Cell) -> bool:
        """Whether a choice is not told from a blind one."""
        chosen = self.chance is not None and cell.score.metric in CHOSEN
        return chosen and not cell.score.low > (self.chance or 0.0)


def matrix_of(sides: Sequence[Side], task: Task, *, resamples: int = 2000, seed: int = 0) -> Matrix:
    """Of the task's headline metrics, by language. Raises EvalError where sides answered other cases."""
    asked = [[outcome.case.id for outcome in side.outcomes] for side in sides]
    if not sides or any(ids != asked[0] for ids in asked):
        raise EvalError("the sides did not answer the same cases: ask each of them about all")
    columns = [
        column
        for language in in_order({o.case.language for o in sides[0].outcomes})
        for column in _columns(sides, task, language, resamples, seed)
    ]
    offered = [len(outcome.case.options) for outcome in sides[0].outcomes]
    chance = 100 * sum(1 / count for count in offered) / len(offered) if all(offered) else None
    return Matrix(task.name, tuple(sides), tuple(columns), len(asked[0]), chance)


def _columns(sides: Sequence[Side], task: Task, language: str, resamples: int, seed: int) -> Iterator[Column]:
    some = [[o for o in side.outcomes if language in ("all", o.case.language)] for side in sides]
    for metric in task.metrics(language, [o.case.reference for o in some[0]]):
        if metric.name not in task.headline:
            continue
        found = [score_of(metric, language, mine, resamples, seed) for mine in some]
        scores = [score for score in found if score is not None]
        if len(scores) == len(sides):
            up = metric.higher_is_better is not False
            best = _best([score.value for score in scores], up)
            groups, stats = [o.case.group for o in some[0]], [stats_of(metric, mine) for mine in some]
            changes = [
                compare(metric, stats[best], each, groups=groups, resamples=resamples, seed=seed)
                for i, each in enumerate(stats)
                if i != best
            ]
            yield Column(language, metric.name, up, _cells(scores, best, corrected(changes)))


def _best(values: Sequence[float], up: bool) -> int:
    """The first of the best; what is not defined is worst."""
    worst = -math.inf if up else math.inf
    known = [worst if math.isnan(value) else value for value in values]
    return known.index(max(known) if up else min(known))


def _cells(scores: Sequence[Score], best: int, changes: Sequence[Comparison]) -> tuple[Cell, ...]:
    left = iter(changes)
    found = []
    for i, score in enumerate(scores):
        if i == best:
            found.append(Cell(score, "best"))
            continue
        change = next(left)
        found.append(Cell(score, "behind" if change.verdict == "worse" else "even", change))
    return tuple(found)


def without_outcomes(matrix: Matrix) -> Matrix:
    """Without what was answered."""
    return replace(matrix, sides=tuple(replace(side, outcomes=()) for side in matrix.sides))
