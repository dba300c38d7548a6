"""Near-duplicates by MinHash and locality-sensitive hashing, with the signatures on disk.

Broder 1997 (MinHash); Li and Koenig 2010, arXiv:0910.3349 (b-bit signatures, b = 8 here).
A row costs 192 bytes of scratch space and 5 bytes of memory at 128 permutations.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import IO

import numpy as np
import rensa
from numpy.typing import NDArray

from dialoop.types import Conversation

RECALL = 0.99
"""Of pairs exactly at the threshold, the share that shares a band."""
LATIN_GRAM, HAN_GRAM = 5, 3
SEED = 42
LOOK_AHEAD = 48
"""Rows of one bucket that each row is compared with, besides the bucket's first."""
_CHUNK = 1 << 11
_RESIDENT = 1 << 28
_PARTITION = 1 << 23
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

_PAD = "\x00" * (LATIN_GRAM - 1)

Rows = NDArray[np.int64]


def shingle_text(conversation: Conversation) -> str:
    """What is compared: roles and texts, case-folded, runs of space as one."""
    parts = []
    for message in conversation.messages:
        parts.append(f"\x02{message.role[0]} {message.content}")
        parts += [f"\x03{call.name} {call.arguments}" for call in message.tool_calls]
    return " ".join("".join(parts).casefold().split())


def shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes of the character n-grams of all texts, flat, and the offsets of each text: shape (n + 1,).

    An n-gram has 3 characters where it starts with a Chinese one, else 5.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    points = np.frombuffer(_PAD.join([*texts, ""]).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    wide = points.astype(np.uint64)
    size = max(0, len(points) - len(_PAD))
    hashed = wide[:size] * _MULTIPLIER
    for k in range(1, HAN_GRAM):
        hashed = (hashed ^ wide[k : size + k]) * _MULTIPLIER
    short = hashed
    for k in range(HAN_GRAM, LATIN_GRAM):
        hashed = (hashed ^ wide[k : size + k]) * _MULTIPLIER
    head = points[:size]
    flat = np.where((head >= 0x3400) & (head <= 0x9FFF), short, hashed)
    flat ^= flat >> np.uint64(29)
    # What starts in the padding between two texts would mix them.
    within = np.repeat(np.arange(len(lengths)) * len(_PAD), lengths) + np.arange(lengths.sum())
    return flat[within], np.cumsum([0, *lengths]).astype(np.uint64)


def signatures(texts: Sequence[str], permutations: int) -> NDArray[np.uint32]:
    """MinHash signatures, shape (len(texts), permutations)."""
    flat, offsets = shingles(texts)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, permutations, SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), permutations)


def band_width(threshold: float, permutations: int) -> int:
    """The widest band, in permutations, that still brings pairs at the threshold together with RECALL."""
    for width in range(min(32, permutations), 1, -1):
        if 1 - (1 - threshold**width) ** (permutations // width) >= RECALL:
            return width
    return 1


class NearIndex:
    """Signatures and band hashes of rows, appended batch by batch to files under `scratch`.

    A context manager: the files are closed when it ends.
    """

    def __init__(self, scratch: Path, *, threshold: float, permutations: int) -> None:
        self.threshold = threshold
        self.rows = 0
        self._permutations = permutations
        self._width = band_width(threshold, permutations)
        self._bands = permutations // self._width
        self._paths = [scratch / f"band{i}.u32" for i in range(self._bands)]
        self._low_path = scratch / "signatures.u8"
        self._files: list[IO[bytes]] = [path.open("wb") for path in [*self._paths, self._low_path]]

    def __enter__(self) -> NearIndex:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def append(self, conversations: Sequence[Conversation]) -> None:
        """Add rows, numbered from 0 in the order they come."""
        signed = signatures([shingle_text(c) for c in conversations], self._permutations)
        width = self._width
        for band, file in enumerate(self._files[:-1]):
            file.write(_folded(signed[:, band * width : (band + 1) * width]).tobytes())
        self._files[-1].write(signed.astype(np.uint8).tobytes())
        self.rows += len(conversations)

    def twins(self) -> Rows:
        """For each row the earlier near-duplicate that it repeats, or -1. Shape (rows,)."""
        links = _Twins(self.rows)
        self._match(links)
        return links.twin

    def clusters(self) -> Rows:
        """For each row the first row of its cluster of near-duplicates. Shape (rows,)."""
        links = _Clusters(self.rows)
        self._match(links)
        return links.label

    def _match(self, links: _Links) -> None:
        for file in self._files:
            file.flush()
        if not self.rows:
            return
        parts = -(-self.rows // _PARTITION)
        with _Signatures(self._low_path, self.rows, self._permutations) as low:
            for path, part in product(self._paths, range(parts)):
                order, hashes = _bucketed(path, part, parts)
                _compare(order, hashes, low, self.threshold, links)


def _folded(columns: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """One 32-bit hash of each row of a band."""
    hashed = np.zeros(len(columns), dtype=np.uint64)
    for k in range(columns.shape[1]):
        hashed = (hashed ^ columns[:, k]) * _MULTIPLIER
        hashed ^= hashed >> np.uint64(31)
    return (hashed >> np.uint64(32)).astype(np.uint32)


def _bucketed(path: Path, part: int, parts: int) -> tuple[Rows, NDArray[np.uint32]]:
    """Rows that share a band hash with another, by hash and then by row; one part of the hash range."""
    hashes = np.fromfile(path, dtype=np.uint32)
    rows = np.arange(len(hashes)) if parts == 1 else np.flatnonzero(hashes % parts == part)
    hashes = hashes[rows]
    order = np.argsort(hashes, kind="stable")
    rows, hashes = rows[order], hashes[order]
    same = hashes[1:] == hashes[:-1]
    shared = np.zeros(len(rows), dtype=bool)
    shared[1:] = same
    shared[:-1] |= same
    return rows[shared], hashes[shared]


class _Twins:
    """A row that repeats an earlier one is out of the race at once: the first of each family is kept."""

    def __init__(self, rows: int) -> None:
        self.twin = np.full(rows, -1, dtype=np.int64)

    def open(self, rows: Rows) -> NDArray[np.bool_]:
        """Rows that can still be linked."""
        return np.asarray(self.twin[rows] < 0)

    def settled(self, first: Rows, later: Rows) -> NDArray[np.bool_]:
        """Pairs that need no comparison."""
        return np.asarray((self.twin[first] >= 0) | (self.twin[later] >= 0))

    def link(self, first: Rows, later: Rows) -> None:
        """In order, so that a row is never dropped for one that was itself dropped in this batch."""
        twin = self.twin
        for a, b in zip(first.tolist(), later.tolist(), strict=True):
            if twin[a] < 0 and twin[b] < 0:
                twin[b] = a


class _Clusters:
    """Union of linked rows; the label of a cluster is its first row."""

    def __init__(self, rows: int) -> None:
        self.label = np.arange(rows, dtype=np.int64)

    def open(self, rows: Rows) -> NDArray[np.bool_]:
        """Rows that can still be linked: all, for each may bind two clusters."""
        return np.ones(len(rows), dtype=bool)

    def settled(self, first: Rows, later: Rows) -> NDArray[np.bool_]:
        """Pairs that need no comparison."""
        return np.asarray(self.label[first] == self.label[later])

    def link(self, first: Rows, later: Rows) -> None:
        """Merge until every linked pair has one label; labels only go down, so this ends."""
        while True:
            a, b = self.label[first], self.label[later]
            if np.array_equal(a, b):
                return
            np.minimum.at(self.label, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(up := self.label[self.label], self.label):
                self.label = up


_Links = _Twins | _Clusters


class _Signatures:
    """The file of low bytes, mapped; touched pages are given back so that they do not count as memory."""

    def __init__(self, path: Path, rows: int, width: int) -> None:
        self._file = path.open("rb")
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(self._map, dtype=np.uint8).reshape(rows, width)

    def __enter__(self) -> _Signatures:
        return self

    def __exit__(self, *_: object) -> None:
        del self._rows
        self._map.close()
        self._file.close()

    def alike(self, first: Rows, later: Rows, threshold: float) -> NDArray[np.bool_]:
        """Which pairs are at least `threshold` similar by estimate. Shape (len(first),)."""
        found = [np.zeros(0, dtype=bool)]
        for start in range(0, len(first), _CHUNK):
            a, b = self._rows[first[start : start + _CHUNK]], self._rows[later[start : start + _CHUNK]]
            found.append(similarity(a, b) >= threshold)
            if len(self._map) > _RESIDENT:
                self._map.madvise(mmap.MADV_DONTNEED)
        return np.concatenate(found)


def _compare(
    order: Rows, hashes: NDArray[np.uint32], low: _Signatures, threshold: float, links: _Links
) -> None:
    """Compare every row of a bucket with its first, then with the next few that are still open."""
    order, hashes = _open(order, hashes, links)
    if not len(order):
        return
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
    _verify(np.repeat(order[starts], np.diff(np.r_[starts, len(order)])), order, low, threshold, links)
    order, hashes = _open(order, hashes, links)
    for lag in range(1, LOOK_AHEAD + 1):
        near = np.flatnonzero(hashes[lag:] == hashes[:-lag])
        if not len(near):
            return
        _verify(order[near], order[near + lag], low, threshold, links)


def _open(order: Rows, hashes: NDArray[np.uint32], links: _Links) -> tuple[Rows, NDArray[np.uint32]]:
    kept = links.open(order)
    return order[kept], hashes[kept]


def _verify(first: Rows, later: Rows, low: _Signatures, threshold: float, links: _Links) -> None:
    """Link the pairs whose signatures agree often enough."""
    pairs = np.flatnonzero((first != later) & ~links.settled(first, later))
    first, later = first[pairs], later[pairs]
    alike = low.alike(first, later, threshold)
    links.link(first[alike], later[alike])


def similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of signature rows, less bytes that agree by chance. Shape (n,)."""
    agree = (a == b).mean(axis=1)
    return np.asarray((agree - 1 / 256) / (1 - 1 / 256))


def near_clusters(
    conversations: Iterable[Sequence[Conversation]], scratch: Path, *, threshold: float, permutations: int
) -> Rows:
    """Cluster labels of conversations that come in batches."""
    with NearIndex(scratch, threshold=threshold, permutations=permutations) as index:
        for batch in conversations:
            index.append(batch)
        return index.clusters()
