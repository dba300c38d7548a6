"""N-grams of many texts at once: sorted integers in the place of counters.

An n-gram is its 64-bit hash. Those of a pair are told apart by 53 of its bits: two n-grams of a pair of a
thousand symbols are taken for one about once in 10^10 pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PAIRS, MOST_SYMBOLS = 1023, 32_768
"""Of one sort: the pair's number takes 10 bits, and what fits a processor's cache is sorted faster."""
LONGEST_PART = 64
_SIDE, _PAIR = np.uint64(1), np.uint64(54)
_HASH = np.uint64(64 - 53)
_NO_PAIR = np.uint64(MOST_PAIRS << 54)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
Keys = NDArray[np.uint64]
Counts = NDArray[np.float64]
Lengths = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Texts as numbers. codes: (S,) uint32, one text after the other; lengths: (N,) of each."""

    codes: NDArray[np.uint32]
    lengths: Lengths

    def each(self) -> Iterator[list[int]]:
        """The numbers of every text."""
        stop = 0
        for length in self.lengths.tolist():
            start, stop = stop, stop + length
            yield self.codes[start:stop].tolist()

    def part(self, start: int, stop: int, ends: Lengths) -> Coded:
        """Of the texts from `start` to `stop`. ends: (N + 1,) where each begins."""
        return Coded(self.codes[ends[start] : ends[stop]], self.lengths[start:stop])

    @property
    def ends(self) -> Lengths:
        """(N + 1,) where each text begins, and where the last one ends."""
        return np.concatenate([[0], np.cumsum(self.lengths)])


class Numbering(dict[str, bytes]):
    """Tokens as numbers, by first appearance. What a short part of a text is cut into is asked once.

    cut: a part of a text -> its tokens, whatever stands around the part.
    """

    def __init__(self, cut: Callable[[str], Sequence[str]]) -> None:
        super().__init__()
        self._cut = cut
        self._known: dict[str, int] = {}

    def __missing__(self, part: str) -> bytes:
        known = self._known
        numbers = [known.setdefault(token, len(known)) for token in self._cut(part)]
        packed = np.array(numbers, dtype=np.uint32).tobytes()
        if len(part) <= LONGEST_PART:
            self[part] = packed
        return packed

    def coded(self, texts: Iterable[Sequence[str]]) -> Coded:
        """texts: each in parts."""
        packed = [b"".join(map(self.__getitem__, parts)) for parts in texts]
        lengths = np.array([len(each) // 4 for each in packed], dtype=np.int64)
        return Coded(np.frombuffer(b"".join(packed), dtype=np.uint32), lengths)


def characters(texts: Sequence[str]) -> Coded:
    """The code points of texts without their white space."""
    dense = ["".join(text.split()) for text in texts]
    packed = "".join(dense).encode("utf-32-le", "surrogatepass")
    return Coded(np.frombuffer(packed, dtype=np.uint32), np.array([*map(len, dense)], dtype=np.int64))


def common_grams(said: Coded, right: Coded, orders: int) -> Counts:
    """(N, orders, 3): n-grams said, right, and in common, for n from 1."""
    sizes = np.stack([said.lengths, right.lengths], axis=-1)
    found = np.empty((len(sizes), orders, 3))
    found[:, :, :2] = np.maximum(sizes[:, None] - np.arange(orders)[:, None], 0)
    said_ends, right_ends = said.ends, right.ends
    for start, stop in _blocks(sizes.sum(1)):
        parts = said.part(start, stop, said_ends), right.part(start, stop, right_ends)
        found[start:stop, :, 2] = _in_common(*parts, orders)
    return found


def _blocks(sizes: Lengths) -> Iterator[tuple[int, int]]:
    """Pairs that are sorted together."""
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + MOST_SYMBOLS, side="right"))
        stop = min(max(stop, start + 1), start + MOST_PAIRS)
        yield start, stop
        start = stop


def _in_common(said: Coded, right: Coded, orders: int) -> Counts:
    """(N, orders) n-grams of both, each as often as where it is rarer."""
    pairs, found = len(said.lengths), np.zeros((len(said.lengths), orders))
    both = Coded(np.concatenate([said.codes, right.codes]), np.concatenate([said.lengths, right.lengths]))
    marks = np.arange(pairs, dtype=np.uint64) << _PAIR
    marks = np.repeat(np.concatenate([marks, marks | _SIDE]), both.lengths)
    for order, (keys, over) in enumerate(_grams(both, orders)):
        marks[over] = _NO_PAIR
        sides = keys >> _HASH << _SIDE | marks[: len(keys)]
        sides.sort()
        found[:, order] = _shared(sides)[:pairs]
    return found


def _grams(texts: Coded, orders: int) -> Iterator[tuple[Keys, Lengths]]:
    """For each order a hash from every place on, and the places that from now on reach into another text."""
    symbols = _mixed(texts.codes.astype(np.uint64))
    ends, rolling = texts.ends[1:], symbols
    yield rolling, ends[:0]
    for order in range(1, orders):
        rolling = rolling[:-1] * _FACTOR ^ symbols[order:]
        yield rolling, ends[ends >= order] - order


def _grams_of(texts: Coded, n: int) -> tuple[Keys, Lengths]:
    """A hash from every place on, and all places that reach into another text."""
    found = [*_grams(texts, n)]
    return found[-1][0], np.concatenate([over for _, over in found])


def _shared(keys: Keys) -> Counts:
    """(1024,) of sorted keys, whose last bit is the side: over what both have, the rarer side's number."""
    turns = np.flatnonzero((keys[1:] ^ keys[:-1]) == _SIDE)
    counts = np.ones(len(turns))
    before, after = np.maximum(turns - 1, 0), np.minimum(turns + 2, len(keys) - 1)
    again = (keys[before] == keys[turns]) & (keys[after] == keys[turns + 1])
    many = np.flatnonzero(again & (before < turns) & (after > turns + 1))
    first = np.searchsorted(keys, keys[turns[many]], side="left")
    last = np.searchsorted(keys, keys[turns[many] + 1], side="right")
    counts[many] = np.minimum(turns[many] + 1 - first, last - turns[many] - 1)
    of = (keys[turns] >> _PAIR).astype(np.int64)
    return np.asarray(np.bincount(of, weights=counts, minlength=MOST_PAIRS + 1), dtype=np.float64)


def rarities(texts: Coded, n: int) -> Counts:
    """(N,) sums over a text's n-grams of 1 / how often each is in all texts together."""
    inside = np.ones(len(texts.codes), dtype=bool)
    keys, over = _grams_of(texts, n)
    inside[over] = False
    inside = inside[: len(keys)]
    _, which, counts = np.unique(keys[inside], return_inverse=True, return_counts=True)
    of = np.repeat(np.arange(len(texts.lengths)), texts.lengths)[: len(keys)][inside]
    return np.asarray(np.bincount(of, weights=1 / counts[which], minlength=len(texts.lengths)))


def repeats(texts: Coded, n: int) -> NDArray[np.bool_]:
    """(N,) whether an n-gram is in the text twice; about once in 10^10 texts also where none is."""
    ends, found = texts.ends, np.zeros(len(texts.lengths) + MOST_PAIRS + 1, dtype=bool)
    for start, stop in _blocks(texts.lengths):
        some = texts.part(start, stop, ends)
        marks = np.repeat(np.arange(stop - start, dtype=np.uint64) << _PAIR, some.lengths)
        keys, over = _grams_of(some, n)
        marks[over] = _NO_PAIR
        sides = keys >> _HASH << _SIDE | marks[: len(keys)]
        sides.sort()
        twice = sides[:-1][sides[1:] == sides[:-1]] >> _PAIR
        found[start + twice[twice < MOST_PAIRS].astype(np.int64)] = True
    return found


def _mixed(codes: Keys) -> Keys:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit depends on every other."""
    codes = codes + _FACTOR
    codes = (codes ^ codes >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ codes >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return codes ^ codes >> np.uint64(31)
