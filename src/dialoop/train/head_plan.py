"""Which rows of a head's training come in which update: pure functions of (seed, epoch, step)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dialoop.chat.pairs import PairTexts, history_text
from dialoop.config import OptimSettings
from dialoop.config.heads import HeadTrainSettings
from dialoop.data.mix import epoch_order
from dialoop.models.heads import by_length
from dialoop.train.batch import Batch
from dialoop.train.head_rows import HeadRow, pack_groups, pack_heads
from dialoop.train.optim import warm_decay
from dialoop.types import Pair

POOL = 32
"""Updates whose rows are sorted by length together, so that rows of an update are about as long."""


class _Epochs:
    """Updates of `batch_rows` rows of about the same length, in an order of each epoch's own."""

    def __init__(self, lengths: Sequence[int], settings: HeadTrainSettings, optim: OptimSettings) -> None:
        self.settings, self.optim = settings, optim
        self.updates: list[list[int]] = []
        self.per_epoch = math.ceil(len(lengths) / settings.batch_rows)
        for epoch in range(math.ceil(settings.epochs)):
            share = min(1.0, settings.epochs - epoch)
            grouped = _updates(lengths, settings, epoch)
            self.updates += grouped[: max(1, round(share * len(grouped)))]

    @property
    def steps(self) -> int:
        return len(self.updates)

    def rate(self, step: int) -> float:
        return warm_decay(step, self.steps, self.optim)


def _updates(lengths: Sequence[int], settings: HeadTrainSettings, epoch: int) -> list[list[int]]:
    order = epoch_order(len(lengths), settings.seed, epoch).tolist()
    size = settings.batch_rows
    found: list[list[int]] = []
    for start in range(0, len(order), POOL * size):
        pool = sorted(order[start : start + POOL * size], key=lambda i: lengths[i])
        found += [pool[i : i + size] for i in range(0, len(pool), size)]
    shuffled = np.random.default_rng((settings.seed, epoch, 1)).permutation(len(found))
    return [found[i] for i in shuffled]


class RowPlan(_Epochs):
    """Rows that are learnt one by one. class_weights: as for `pack_heads`."""

    def __init__(
        self,
        rows: Sequence[HeadRow],
        settings: HeadTrainSettings,
        optim: OptimSettings,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__([len(row.token_ids) for row in rows], settings, optim)
        self.rows, self.class_weights = rows, class_weights

    def batches(self, step: int) -> Sequence[Batch]:
        lengths = [len(row.token_ids) for row in self.rows]
        packs = by_length(lengths, self.updates[step], self.settings.batch_tokens)
        return [pack_heads([self.rows[i] for i in rows], self.class_weights) for rows in packs]


class PairPlan(_Epochs):
    """Answers that fit, each beside `negatives` others of its update; rows that do not fit stand alone.

    A row's class is 2 x group + (1 where it fits), its group being the right answer's.
    ranked: only right answers have a weight, the others are what they are ranked among.
    """

    def __init__(
        self,
        rows: Sequence[Pair],
        pairs: PairTexts,
        negatives: int,
        settings: HeadTrainSettings,
        optim: OptimSettings,
        *,
        ranked: bool,
    ) -> None:
        self.rows, self.pairs, self.negatives = rows, pairs, negatives
        self.ranked = ranked
        self.texts = [history_text(row.history) for row in rows]
        lengths = [len(pairs.ids(text, row.answer)[0]) for text, row in zip(self.texts, rows, strict=True)]
        super().__init__(lengths, settings, optim)

    def batches(self, step: int) -> Sequence[Batch]:
        groups = self.groups(self.updates[step], (self.settings.seed, step))
        sizes = [len(group) * max(len(row.token_ids) for row in group) for group in groups]
        packs = by_length(sizes, range(len(groups)), self.settings.batch_tokens)
        worth = [0.0, 1.0] * len(groups) if self.ranked else None
        return [pack_groups([groups[i] for i in pack], worth) for pack in packs]

    def groups(self, update: Sequence[int], seed: tuple[int, ...]) -> list[list[HeadRow]]:
        """The right answer of each row and the wrong ones beside it."""
        chance = np.random.default_rng(seed)
        found = []
        for group, i in enumerate(update):
            row = self.rows[i]
            answers = [row.answer]
            if row.fits:
                others = sorted({self.rows[j].answer for j in update if self.rows[j].answer != row.answer})
                drawn = chance.permutation(len(others))[: self.negatives]
                answers += [others[j] for j in drawn]
            ids = [self.pairs.ids(self.texts[i], answer)[0] for answer in answers]
            found.append([
                HeadRow(tuple(each), (len(each) - 1,), (2 * group + (row.fits and not k),))
                for k, each in enumerate(ids)
            ])  # fmt: skip
        return found
