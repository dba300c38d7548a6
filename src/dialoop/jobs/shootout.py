"""Methods side by side on one data set: as many trials each, over learning rates that suit the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dialoop.config import Choice, FloatRange, SearchSettings, TuneRecipe
from dialoop.train.search import Tried

METHODS: Mapping[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "full": ({"kind": "full"}, (1e-4, 3e-4, 1e-3)),
    "LoRA": ({"kind": "lora", "rank": 16, "alpha": 32.0}, (1e-3, 3e-3, 1e-2)),
    "bottleneck": ({"kind": "bottleneck", "size": 64}, (1e-3, 3e-3, 1e-2)),
    "prompt tuning": ({"kind": "prompt", "tokens": 20}, (1e-2, 3e-2, 1e-1)),
    "BitFit": ({"kind": "bitfit"}, (1e-3, 3e-3, 1e-2)),
}
"""Method by name, and the learning rates that are tried with it."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A method's best trial among its own, and how many those were; None where each failed."""

    name: str
    best: Tried | None
    trials: int


def shootout(recipe: TuneRecipe) -> TuneRecipe:
    """The recipe whose search tries each method at each of its rates, everything else alike.

    No trial is stopped early, so that all have the same budget.
    """
    rates = [rate for _, rates in METHODS.values() for rate in rates]
    space = {
        "method": Choice(of=tuple(method for method, _ in METHODS.values())),
        "optim.learning_rate": FloatRange(low=min(rates), high=max(rates), log=True),
    }
    given = recipe.search or SearchSettings()
    settings = given.model_copy(update={"space": space, "trials": len(rates), "pruner": "none"})
    return recipe.model_copy(update={"search": settings})


def lineup() -> list[dict[str, Any]]:
    """The values of all its trials, the first rate of every method before the second of any."""
    rounds = zip(*(rates for _, rates in METHODS.values()), strict=True)
    return [
        {"method": method, "optim.learning_rate": rate}
        for rates in rounds
        for (method, _), rate in zip(METHODS.values(), rates, strict=True)
    ]


def contestants(trials: Sequence[Tried]) -> list[Contestant]:
    """The methods in the order of their names above."""
    found = []
    for name, (method, _) in METHODS.items():
        mine = [trial for trial in trials if trial.values.get("method") == method]
        whole = [trial for trial in mine if trial.outcome == "completed" and trial.loss is not None]
        best = min(whole, key=lambda trial: (trial.loss, trial.number), default=None)
        found.append(Contestant(name, best, len(mine)))
    return found
