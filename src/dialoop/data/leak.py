"""Rows of one split that repeat rows of another, exactly or nearly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dialoop.data.exact import content_keys
from dialoop.data.near import band_width, shingle_text, signatures
from dialoop.data.spill import batches
from dialoop.types import Conversation

_Signed = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Positions of test rows that occur in train. near: without the exact ones; twins: their train rows."""

    rows: int
    exact: tuple[int, ...]
    near: tuple[int, ...]
    twins: tuple[int, ...]

    @property
    def share(self) -> float:
        """Leaked rows over all test rows, 0 to 1."""
        return (len(self.exact) + len(self.near)) / self.rows if self.rows else 0.0

    @property
    def words(self) -> str:
        """How many, as a phrase."""
        return (
            f"{len(self.exact)} exact and {len(self.near)} near-duplicates of training rows "
            f"among {self.rows} test rows"
        )


def leaks(
    train: Sequence[Conversation],
    test: Sequence[Conversation],
    *,
    threshold: float = 0.85,
    permutations: int = 128,
) -> LeakReport:
    """Which rows of `test` have an equal or a near-duplicate in `train`."""
    equal = np.isin(content_keys(test), content_keys(train))
    if not len(train) or not len(test):
        return LeakReport(len(test), (), (), ())
    twins = _twins(_signed(train, permutations), _signed(test, permutations), threshold)
    near = np.flatnonzero(~equal & (twins >= 0))
    exact = tuple(np.flatnonzero(equal).tolist())
    return LeakReport(len(test), exact, tuple(near.tolist()), tuple(twins[near].tolist()))


def near_free(
    test: Sequence[Conversation],
    train: Sequence[Conversation],
    *,
    threshold: float = 0.85,
    permutations: int = 128,
) -> list[Conversation]:
    """The rows of `test` without a duplicate or near-duplicate in `train`."""
    found = leaks(train, test, threshold=threshold, permutations=permutations)
    leaked = {*found.exact, *found.near}
    return [conversation for i, conversation in enumerate(test) if i not in leaked]


def _signed(conversations: Sequence[Conversation], permutations: int) -> _Signed:
    return np.concatenate(
        [signatures([shingle_text(c) for c in b], permutations) for b in batches(conversations)]
    )


def _twins(train: _Signed, test: _Signed, threshold: float) -> NDArray[np.int64]:
    """For each test row the most similar train row of a shared band from `threshold` on, or -1."""
    twins = np.full(len(test), -1, dtype=np.int64)
    best = np.full(len(test), threshold)
    for columns in _bands(train.shape[1], band_width(threshold, train.shape[1])):
        for row, candidates in _candidates(train[:, columns], test[:, columns]):
            alike = (train[candidates] == test[row]).mean(axis=1)
            top = int(alike.argmax())
            if alike[top] > best[row] or (twins[row] < 0 and alike[top] >= best[row]):
                best[row], twins[row] = alike[top], candidates[top]
    return twins


def _bands(permutations: int, width: int) -> Iterator[slice]:
    for start in range(0, permutations - width + 1, width):
        yield slice(start, start + width)


def _candidates(train: _Signed, test: _Signed) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(test row, train rows with the same band) for every test row that has any."""
    buckets: dict[bytes, list[int]] = {}
    wanted = {row.tobytes() for row in test}
    for i, row in enumerate(train):
        if (key := row.tobytes()) in wanted:
            buckets.setdefault(key, []).append(i)
    arrays = {key: np.array(rows, dtype=np.int64) for key, rows in buckets.items()}
    for i, row in enumerate(test):
        if (key := row.tobytes()) in arrays:
            yield i, arrays[key]
