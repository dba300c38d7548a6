"""Packed rows: documents or conversations side by side in one row of tokens, never padded.

The order of data is a pure function of (seed, epoch), so a run resumes at any update by counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dialoop.chat.render import Rendered
from dialoop.data.mix import Ints as Ints


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass. All arrays are (T,); lengths sum to T.

    targets[t] is the token after token_ids[t] in its document; weights[t] is what learning it is worth,
    0 at the last token of a document.
    """

    token_ids: Ints
    targets: Ints
    weights: NDArray[np.float32]
    lengths: tuple[int, ...]
    together: ClassVar[int] = 1
    """Documents in a row that stay in one forward pass."""

    @property
    def worth(self) -> float:
        """What the loss of an update is divided by, summed over its batches."""
        return float(self.weights.sum())

    @property
    def rows(self) -> int:
        return len(self.lengths) // self.together

    def part(self, tokens: slice, documents: slice) -> Self:
        """Some documents of it, and the tokens of these."""
        arrays = {name: getattr(self, name)[tokens] for name in ("token_ids", "targets", "weights")}
        return replace(self, **arrays, lengths=self.lengths[documents])

    def halves(self) -> tuple[Self, Self]:
        """Two batches of about as many tokens; of at least two rows."""
        ends = np.cumsum(self.lengths)[self.together - 1 :: self.together][:-1]
        row = int(np.abs(ends - len(self.token_ids) / 2).argmin())
        place, count = int(ends[row]), (row + 1) * self.together
        return (
            self.part(slice(None, place), slice(None, count)),
            self.part(slice(place, None), slice(count, None)),
        )


def pack(rows: Sequence[Rendered]) -> Batch:
    """Rendered conversations as one packed row, shortest first so that equal lengths run together."""
    return Batch(*side_by_side(sorted(rows, key=lambda row: len(row.token_ids))))


def side_by_side(rows: Sequence[Rendered]) -> tuple[Ints, Ints, NDArray[np.float32], tuple[int, ...]]:
    """The four fields of a batch of these rows, in their order."""
    ids = [np.asarray(row.token_ids, dtype=np.int64) for row in rows]
    weights = [_shift(np.asarray(row.loss_mask, dtype=np.float32), 0.0) for row in rows]
    return (
        np.concatenate(ids),
        np.concatenate([_shift(row, 0) for row in ids]),
        np.concatenate(weights),
        tuple(len(row) for row in ids),
    )


def _shift(values: NDArray[np.generic], last: float) -> NDArray[np.generic]:
    """`values` moved one place to the left, `last` at the end."""
    return np.append(values[1:], values.dtype.type(last))


def windows(rows: Sequence[NDArray[np.integer]]) -> Batch:
    """Equally long windows of running text, (length + 1,) tokens each; all but the first are targets."""
    tokens = np.stack(rows).astype(np.int64)
    ids, targets = tokens[:, :-1].ravel(), tokens[:, 1:].ravel()
    return Batch(ids, targets, np.ones(len(ids), np.float32), (tokens.shape[1] - 1,) * len(rows))


def halved(batch: Batch, times: int) -> list[Batch]:
    """`batch` in two, `times` times over, between rows; one row stays whole."""
    if times == 0 or batch.rows < 2:
        return [batch]
    return [piece for half in batch.halves() for piece in halved(half, times - 1)]
