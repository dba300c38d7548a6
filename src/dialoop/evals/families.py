"""Several comparisons at once: with every further one, chance has another try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dialoop.evals.compare import Comparison, Verdict
from dialoop.evals.shares import CONFIDENCE


def holm(ps: Sequence[float]) -> tuple[float, ...]:
    """p values corrected for their number (Holm 1979), in the order given."""
    corrected, floor = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = floor
    return tuple(corrected)


def corrected(changes: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The comparisons with corrected p; one that chance may explain among so many can no longer tell."""
    return tuple(
        replace(change, holm=p, family=len(changes), verdict=_verdict(change, p))
        for change, p in zip(changes, holm([change.p for change in changes]), strict=True)
    )


def _verdict(change: Comparison, p: float) -> Verdict:
    return change.verdict if change.verdict == "same" or p <= 1 - CONFIDENCE else "unclear"
