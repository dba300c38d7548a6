"""What a case's answer is chosen from: the labels of a set, other answers of it, or all of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from dialoop.errors import EvalError
from dialoop.evals.task import Case
from dialoop.evals.words import normalised

From = Literal["labels", "some", "all"]
"""`labels`: every answer of the set; `some`: the right one and others; `all`: every one of its language."""
MOST_LABELS = 400


def with_options(
    asked: Sequence[Case], known: Sequence[Case], options: From, *, count: int = 10, seed: int = 0
) -> tuple[Case, ...]:
    """The cases with what each is chosen from. A case whose metadata names `options` has those.

    known: the cases that answers are taken from.  count: options of `some`, the right one among them.
    `relevant` in the metadata names further right options. Raises EvalError where there is no choice.
    """
    every = {case.reference: None for case in known}
    spoken: dict[str, dict[str, None]] = {}
    for case in known:
        spoken.setdefault(case.language, {})[case.reference] = None
    return tuple(
        _graded(case, _options(case, every, spoken[case.language], options, count, f"{seed}/{case.id}"))
        for case in asked
    )


def chosen_of(case: Case, scores: Sequence[float]) -> str:
    """The option with the highest score; of equal ones the least right, so that ties count as wrong: a model
    that finds all options equally good has chosen none of them.
    """
    best = max(scores)
    grades = case.grades or (0.0,) * len(scores)
    tied = [place for place, score in enumerate(scores) if score == best]
    return case.options[min(tied, key=lambda place: grades[place])]


def _options(
    case: Case,
    every: Mapping[str, None],
    spoken: Mapping[str, None],
    options: From,
    count: int,
    seed: str,
) -> tuple[str, ...]:
    given = case.history.metadata.get("options")
    if isinstance(given, list | tuple) and given and all(isinstance(each, str) for each in given):
        return tuple(dict.fromkeys([*given, case.reference] if options == "some" else given))
    if options == "labels":
        if len(every) > MOST_LABELS:
            raise EvalError(
                f"{len(every)} different answers came as labels: the task classification wants the last turn "
                f"to be one of at most {MOST_LABELS}; for answers among others take --task selection"
            )
        return tuple(sorted(every))
    if options == "all":
        return tuple(spoken)
    others = [text for text in sorted(spoken) if normalised(text) != normalised(case.reference)]
    random.Random(seed).shuffle(others)
    return tuple(sorted([case.reference, *others[: count - 1]]))


def _graded(case: Case, options: tuple[str, ...]) -> Case:
    further = case.history.metadata.get("relevant") or ()
    right = {case.reference, *(further if isinstance(further, list | tuple) else ())}
    grades = tuple(float(option in right) for option in options)
    if len(options) < 2 or not any(grades):
        raise EvalError(
            f"case {case.id} has {len(options)} option(s) and {int(sum(grades))} right one(s): give at least "
            f"two, one of them the last turn"
        )
    return replace(case, options=options, grades=grades)
