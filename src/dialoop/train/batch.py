"""Packed rows: documents or conversations side by side in one row of tokens, never padded.

The order of data is a pure function of (seed, epoch), so a run resumes at any update by counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dialoop.chat.render import Rendered
from dialoop.data.mix import Ints as Ints
from dialoop.data.mix import epoch_order as epoch_order


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


def pack(rows: Sequence[Rendered]) -> Batch:
    """Rendered conversations as one packed row, shortest first so that equal lengths run together."""
    rows = sorted(rows, key=lambda row: len(row.token_ids))
    ids = [np.asarray(row.token_ids, dtype=np.int64) for row in rows]
    weights = [_shift(np.asarray(row.loss_mask, dtype=np.float32), 0.0) for row in rows]
    return Batch(
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
    """`batch` in two, `times` times over, between documents; one document stays whole."""
    if times == 0 or len(batch.lengths) < 2:
        return [batch]
    ends = np.cumsum(batch.lengths)[:-1]
    count = int(np.abs(ends - len(batch.token_ids) / 2).argmin()) + 1
    place = int(ends[count - 1])
    parts = (slice(None, place), batch.lengths[:count]), (slice(place, None), batch.lengths[count:])
    return [
        piece
        for at, lengths in parts
        for piece in halved(
            Batch(batch.token_ids[at], batch.targets[at], batch.weights[at], lengths), times - 1
        )
    ]
