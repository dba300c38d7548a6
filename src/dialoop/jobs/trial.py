"""A trial as it stands: each arm against the control, by what users thought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dialoop.config.trials import TrialSettings
from dialoop.evals.sequential import Arm, Reading, parted_by_chance, read
from dialoop.store.ratings import Rating


@dataclass(frozen=True, slots=True)
class TrialReading:
    """arms: their users' mean ratings, the control first.  readings: of each further arm.

    ratings: that count; others: of other names, or given under arms that were changed since.
    parted: p that chance parted the users as the weights say.
    """

    name: str
    arms: tuple[Arm, ...]
    readings: tuple[Reading, ...]
    ratings: int
    others: int
    parted: float


def read_trial(name: str, trial: TrialSettings, ratings: Sequence[Rating]) -> TrialReading:
    """A user counts once, by the mean of all ratings: those of one user depend on each other."""
    mine = [each for each in ratings if each.plan == trial.plan and each.name == trial.rating]
    by_user: dict[tuple[str, str], list[float]] = {}
    for each in mine:
        by_user.setdefault((str(each.arm), str(each.subject)), []).append(each.value)
    arms = tuple(
        Arm(arm.name, tuple(float(np.mean(v)) for (named, _), v in by_user.items() if named == arm.name))
        for arm in trial.arms
    )
    control, *others = arms
    parted = parted_by_chance([len(arm.values) for arm in arms], [arm.weight for arm in trial.arms])
    error = 0.05 / len(others)  # several arms against one control (Bonferroni)
    readings = tuple(read(control, arm, confidence=1 - error) for arm in others)
    return TrialReading(name, arms, readings, len(mine), len(ratings) - len(mine), parted)
