"""Pairs of answers as rendered rows, and packed so that the two of a pair lie in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dialoop.chat.render import Rendered, render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.train.batch import Batch, pack, side_by_side
from dialoop.train.fit import fit_each, without_oldest
from dialoop.types import Preference


@dataclass(frozen=True, slots=True)
class Pair:
    """One history with each of its two answers, which alone are learnt.

    reference: log-probabilities of the two under the model that is held to; None where there is none.
    """

    chosen: Rendered
    rejected: Rendered
    reference: tuple[float, float] | None = None

    @property
    def sides(self) -> tuple[Rendered, Rendered]:
        return self.chosen, self.rejected

    @property
    def size(self) -> int:
        """Tokens of both sides."""
        return self.chosen.size + self.rejected.size


@dataclass(frozen=True, slots=True)
class PairRows:
    """Rendered pairs, the rest as in `Rows`."""

    rows: tuple[Pair, ...]
    shortened: int
    dropped: tuple[int, ...]
    sources: tuple[str, ...] = ()

    @property
    def rendered(self) -> tuple[Rendered, ...]:
        """All that the model sees, chosen and rejected by turns."""
        return tuple(chain.from_iterable(pair.sides for pair in self.rows))

    @property
    def supervised(self) -> int:
        """Tokens of the answers."""
        return sum(weight > 0 for row in self.rendered for weight in row.loss_mask[1:])


@dataclass(frozen=True, slots=True)
class PairBatch(Batch):
    """Documents 2i and 2i + 1 are the chosen and the rejected side of pair i.

    weights: above 0 at the answers.  reference: (2 · pairs,), empty where there is none.
    """

    reference: NDArray[np.float32]
    together: ClassVar[int] = 2

    @property
    def worth(self) -> float:
        """Pairs."""
        return float(self.rows)

    def part(self, tokens: slice, documents: slice) -> Self:
        return replace(Batch.part(self, tokens, documents), reference=self.reference[documents])


def fit_pairs(preferences: Sequence[Preference], tokenizer: ChatTokenizer, *, max_length: int) -> PairRows:
    """Render all, each side within `max_length`. Raises TrainError as `fit_rows`."""

    def draw(preference: Preference) -> Pair | None:
        chosen, rejected = (
            render(each, tokenizer, mask="last") for each in (preference.conversation, preference.other)
        )
        pair = Pair(chosen, rejected)
        return pair if all(side.size <= max_length for side in pair.sides) else None

    return PairRows(*fit_each(preferences, draw, _without_oldest, max_length))


def _without_oldest(preference: Preference) -> Preference | None:
    shorter = without_oldest(preference.history)
    return None if shorter is None else replace(preference, history=shorter)


def pack_pairs(pairs: Sequence[Pair]) -> PairBatch:
    """Pairs as one packed row, shortest first; all of them have a reference, or none."""
    pairs = sorted(pairs, key=lambda pair: pair.size)
    references = [pair.reference for pair in pairs if pair.reference is not None]
    documents = list(chain.from_iterable(pair.sides for pair in pairs))
    return PairBatch(*side_by_side(documents), np.asarray(references, np.float32).reshape(-1))


def packed(rows: Sequence[Rendered | Pair]) -> Batch:
    """Rows of one kind as one packed row."""
    pairs = [row for row in rows if isinstance(row, Pair)]
    return pack_pairs(pairs) if pairs else pack([row for row in rows if isinstance(row, Rendered)])
