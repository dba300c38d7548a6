"""Which rows an epoch takes, and in which order: pure functions of (seed, epoch), so that a run resumes by
counting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from dialoop.config import MixSettings
from dialoop.types import Conversation

Ints = NDArray[np.int64]
SOURCE = "source"
"""The key of a conversation's metadata that names where it came from."""


def labelled(conversations: Iterable[Conversation], source: str) -> Iterator[Conversation]:
    """Each with its source in its metadata."""
    for row in conversations:
        yield replace(row, metadata={**row.metadata, SOURCE: source})


def epoch_order(rows: int, seed: int, epoch: int) -> Ints:
    """All of `rows` rows, in the order of one epoch."""
    return np.random.default_rng((seed, epoch)).permutation(rows)


class Mix:
    """The rows of all epochs. sources: of each row, "" where it is not known; lengths: in tokens."""

    def __init__(
        self, sources: Sequence[str], lengths: Sequence[int], settings: MixSettings, seed: int
    ) -> None:
        self.lengths, self.settings, self.seed = np.asarray(lengths), settings, seed
        self.pools = _pools(sources)
        self._wanted = _wanted(self.pools, settings)

    def epoch(self, number: int) -> Ints:
        """Positions of the rows that epoch `number` (from 0) takes, in order."""
        if self.settings.is_plain:
            rows = epoch_order(len(self.lengths), self.seed, number)
        else:
            rows = self._mixed(number)
        sorted_ = self.settings.curriculum == "length" and number < self.settings.curriculum_epochs
        return rows[np.argsort(self.lengths[rows], kind="stable")] if sorted_ else rows

    def _mixed(self, number: int) -> Ints:
        drawn = [
            pool[stretch(len(pool), number * wanted, wanted, (self.seed, place))]
            for place, (pool, wanted) in enumerate(zip(self.pools.values(), self._wanted, strict=True))
        ]
        rows = np.concatenate(drawn)
        return rows[epoch_order(len(rows), self.seed, number)]


def _pools(sources: Sequence[str]) -> dict[str, Ints]:
    """Positions of the rows of each source."""
    names = np.asarray(sources)
    return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(sources)}


def _wanted(pools: dict[str, Ints], settings: MixSettings) -> list[int]:
    """How many rows of each pool an epoch takes; of the replayed together their share, each by its size."""
    replayed = sum(len(pool) for name, pool in pools.items() if name in settings.replay)
    own = {
        name: max(1, round(settings.weights.get(name, 1.0) * len(pool)))
        for name, pool in pools.items()
        if name not in settings.replay
    }
    share = settings.replay_share / (1 - settings.replay_share) * sum(own.values())
    return [
        own[name] if name in own else max(1, round(share * len(pool) / replayed))
        for name, pool in pools.items()
    ]


def stretch(size: int, start: int, length: int, seed: tuple[int, ...]) -> Ints:
    """`length` places from `start` on of an endless row of shuffles of range(size)."""
    first, skipped = divmod(start, size)
    taken: list[Ints] = []
    for shuffle in count(first):
        if skipped + length <= sum(map(len, taken)):
            break
        taken.append(np.random.default_rng((*seed, shuffle)).permutation(size))
    return np.concatenate([*taken, np.zeros(0, np.int64)])[skipped : skipped + length]
