"""N-grams in common of many pairs at once: sorted integers in the place of counters.

An n-gram is its 64-bit hash, of which 54 bits are kept beside the number of its case: two n-grams of a case
of a thousand symbols are taken for one about once in 10^10 cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1024
"""Cases of one sort; their number takes the other 10 bits."""
_BITS = 54
Codes = NDArray[np.uint64]
Counts = NDArray[np.float64]


def common_grams(said: Sequence[Codes], right: Sequence[Codes], orders: int) -> Counts:
    """(N, orders, 3): n-grams said, right, and in common, for n from 1. said, right: symbols of each case."""
    found = np.zeros((len(said), orders, 3))
    for start in range(0, len(said), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        found[part] = _of_some(said[part], right[part], orders)
    return found


def characters(text: str) -> Codes:
    """The code points of a text without its white space."""
    packed = "".join(text.split()).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(packed, dtype=np.uint32).astype(np.uint64)


def numbered(texts: Sequence[Sequence[str]]) -> list[Codes]:
    """Tokens as numbers, by first appearance."""
    known: dict[str, int] = {}
    return [np.array([known.setdefault(t, len(known)) for t in text], dtype=np.uint64) for text in texts]


def _of_some(said: Sequence[Codes], right: Sequence[Codes], orders: int) -> Counts:
    found = np.empty((len(said), orders, 3))
    lengths = np.array([[len(s), len(r)] for s, r in zip(said, right, strict=True)])
    both = zip(_keys(said, orders), _keys(right, orders), strict=True)
    for order, (mine, theirs) in enumerate(both):
        found[:, order, :2] = np.maximum(lengths - order, 0)
        found[:, order, 2] = _in_common(mine, theirs, len(said))
    return found


def _keys(texts: Sequence[Codes], orders: int) -> Iterator[Codes]:
    """For each order the n-grams of all cases, each as the case's number and a hash."""
    symbols = _mixed(np.concatenate(texts))
    cases = np.repeat(np.arange(len(texts), dtype=np.uint64), [len(text) for text in texts])
    rolling = symbols
    for order in range(orders):
        if order:
            rolling = _mixed(rolling[:-1] + symbols[order:] * np.uint64(0x9E3779B97F4A7C15))
        first, last = cases[: len(rolling)], cases[order : order + len(rolling)]
        keys = first << np.uint64(_BITS) | rolling >> np.uint64(64 - _BITS)
        yield keys[first == last]


def _mixed(codes: Codes) -> Codes:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit depends on every other."""
    codes = codes + np.uint64(0x9E3779B97F4A7C15)
    codes = (codes ^ codes >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ codes >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return codes ^ codes >> np.uint64(31)


def _in_common(mine: Codes, theirs: Codes, cases: int) -> Counts:
    """For each case the n-grams of both, each as often as where it is rarer."""
    keys, counts = _runs(np.sort(mine))
    others, their_counts = _runs(np.sort(theirs))
    if not len(others):
        return np.zeros(cases)
    places = np.minimum(np.searchsorted(others, keys), len(others) - 1)
    hit = others[places] == keys
    shared = np.minimum(counts[hit], their_counts[places[hit]])
    of = (keys[hit] >> np.uint64(_BITS)).astype(np.int64)
    return np.asarray(np.bincount(of, weights=shared, minlength=cases))


def _runs(keys: Codes) -> tuple[Codes, NDArray[np.int64]]:
    """The different ones of sorted keys, and how often each is there."""
    new = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), bool), keys[1:] != keys[:-1]]))
    return keys[new], np.diff(np.append(new, len(keys)))
