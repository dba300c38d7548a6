"""Masked language modelling: windows of text with some of the tokens to be filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dialoop.train.batch import Batch
from dialoop.train.corpus import StagesPlan

HIDDEN, OTHER = 0.8, 0.1


@dataclass(frozen=True, slots=True)
class Specials:
    """Ids of the tokens that frame a text, and of the one that hides."""

    first: int
    last: int
    mask: int


@dataclass(frozen=True, slots=True)
class MaskedPlan:
    """The windows of a plan, each framed and masked anew: pure functions of (seed, step)."""

    plan: StagesPlan
    specials: Specials
    share: float
    vocabulary: int
    seed: int

    @property
    def steps(self) -> int:
        return self.plan.steps

    def rate(self, step: int) -> float:
        return self.plan.rate(step)

    def name(self, step: int) -> str:
        """Of the stage."""
        return self.plan.name(step)

    def batches(self, step: int) -> Sequence[Batch]:
        return [
            masked(
                batch, self.specials, self.share, self.vocabulary, np.random.default_rng((self.seed, step, i))
            )
            for i, batch in enumerate(self.plan.batches(step))
        ]


def masked(
    batch: Batch, specials: Specials, share: float, vocabulary: int, chance: np.random.Generator
) -> Batch:
    """`batch` of equally long windows with frames over their ends; targets are the tokens that were there.

    share: of the tokens of each window that are to be filled in, one at least; as many in every window, since
    blocks of memory whose size changes with each step leave holes (a run of 390 steps came to 10 GB).
    vocabulary: tokens below it may stand in for others.
    """
    ids = batch.token_ids.reshape(len(batch.lengths), -1).copy()
    ids[:, 0], ids[:, -1] = specials.first, specials.last
    ranks = chance.random((len(ids), ids.shape[1] - 2))
    last = max(1, round(share * ranks.shape[1])) - 1
    chosen = np.zeros(ids.shape, dtype=bool)
    chosen[:, 1:-1] = ranks <= np.partition(ranks, last, axis=1)[:, last : last + 1]
    targets, how = ids.copy(), chance.random(ids.shape)
    ids[chosen & (how < HIDDEN)] = specials.mask
    other = chosen & (how >= HIDDEN) & (how < HIDDEN + OTHER)
    ids[other] = chance.integers(0, vocabulary, int(other.sum()))
    weights = chosen.astype(np.float32).ravel()
    return replace(batch, token_ids=ids.ravel(), targets=targets.ravel(), weights=weights)
