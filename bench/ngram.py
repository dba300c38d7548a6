"""An interpolated modified Kneser-Ney model over token ids: the yardstick that only counts.

Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 3:
three discounts an order, continuation counts below the highest order, the uniform distribution below all.
N-grams are numbered order by order: an n-gram's key is the number of its first n - 1 tokens and its last
token in one 64-bit integer; sorted arrays hold the keys, binary search finds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOKEN_BITS = 20
FALLBACK = (0.5, 1.0, 1.5)
Ids = NDArray[np.integer]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Level:
    """One order. keys: (n,) sorted; mass: (n + 1,) each n-gram's discounted share of its context.

    rest: (contexts + 1,) weight of the next lower order. The last entries are for what was never seen:
    mass 0, weight 1.
    discounts: what is taken from counts of 1, 2 and 3 or more.
    """

    keys: Longs
    mass: Floats
    rest: Floats
    discounts: tuple[float, ...]

    def find(self, contexts: Longs, tokens: Ids) -> Longs:
        """The numbers of the n-grams `context token`; -1 where one was never seen."""
        keys = _key(contexts, tokens)
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((self.keys[places] == keys) & (contexts < len(self.rest) - 1), places, -1)


@dataclass(frozen=True, slots=True)
class Stream:
    """Documents end to end, each after a begin-of-document symbol, which is no n-gram's last token.

    tokens, depth: (N,); depth is the place in the document, the symbol's being 0.
    """

    tokens: NDArray[np.int32]
    depth: NDArray[np.int32]

    @classmethod
    def of(cls, documents: Sequence[Ids], begin: int) -> Stream:
        """Raises ValueError where a token is no id below `begin`, the symbol's."""
        starts = np.cumsum([0, *(len(document) + 1 for document in documents)])
        tokens = np.full(starts[-1], begin, np.int32)
        inside = np.ones(len(tokens), bool)
        inside[starts[:-1]] = False
        tokens[inside] = np.concatenate([*documents, np.zeros(0, np.int32)])
        if len(tokens) and (tokens.min() < 0 or tokens.max() > begin or begin in tokens[inside]):
            raise ValueError(f"token ids are not all in 0..{begin - 1}: give the whole vocabulary's size")
        depth = np.arange(len(tokens)) - np.repeat(starts[:-1], np.diff(starts))
        return cls(tokens, depth.astype(np.int32))


@dataclass(frozen=True, slots=True)
class KneserNey:
    """P(token | the tokens before it in its document) over the ids 0..vocabulary - 1."""

    vocabulary: int
    levels: tuple[Level, ...]

    def log_probabilities(self, documents: Sequence[Ids]) -> list[Floats]:
        """Natural logs, one a token of each document."""
        stream = Stream.of(documents, self.vocabulary)
        p = np.full(len(stream.tokens), 1 / self.vocabulary)
        contexts = np.zeros(len(p), np.int64)
        for level in self.levels:
            numbers = level.find(contexts, stream.tokens)
            p = level.rest[contexts] * p + level.mass[numbers]
            contexts = np.concatenate((numbers[:1], numbers[:-1]))
            contexts[(contexts < 0) | (stream.depth == 0)] = len(level.keys)
        bounds = np.cumsum([len(document) for document in documents])[:-1]
        return np.split(np.log(p[stream.depth > 0]), bounds) if documents else []


def train(documents: Sequence[Ids], vocabulary: int, order: int = 5) -> KneserNey:
    """Estimated on `documents`, arrays of ids below `vocabulary`. About 110 bytes a token at the peak."""
    stream = Stream.of(documents, vocabulary)
    keys: Longs = np.arange(vocabulary + 1)
    numbers, parents = stream.tokens, 1
    counts: Longs = np.bincount(stream.tokens[stream.depth > 0], minlength=len(keys))
    begun = np.zeros(len(keys), bool)
    levels = []
    for n in range(2, order + 1):
        places = np.flatnonzero(stream.depth >= n - 1)
        longer, which, longer_counts = np.unique(
            _key(numbers[places - 1], stream.tokens[places]), return_inverse=True, return_counts=True
        )
        before = _continuations(which, numbers[places], len(longer), len(keys))
        levels.append(_level(keys, np.where(begun, counts, before), parents))
        parents, keys, counts = len(keys), longer, longer_counts
        numbers = np.full(len(stream.tokens), -1, np.int32)
        numbers[places] = which
        begun = np.zeros(len(keys), bool)
        begun[which] = stream.depth[places] == n - 1
    return KneserNey(vocabulary, (*levels, _level(keys, counts, parents)))


def _key(contexts: Ids, tokens: Ids) -> Longs:
    return (contexts.astype(np.int64) << TOKEN_BITS) | tokens


def _continuations(which: Longs, endings: Ids, longer: int, shorter: int) -> Longs:
    """Of each n-gram: how many different tokens stand before it, each making a different longer n-gram.

    which, endings: (N,) number of the longer n-gram, and of the n-gram that it ends with, at each place.
    """
    ending = np.zeros(longer, np.int64)
    ending[which] = endings
    return np.bincount(ending, minlength=shorter)


def _level(keys: Longs, counts: Longs, parents: int) -> Level:
    """parents: how many contexts there are, those without a follower included: they have no weight here."""
    contexts = keys >> TOKEN_BITS
    discounts = _discounts(counts)
    taken = np.asarray([0.0, *discounts])[np.minimum(counts, 3)]
    totals = np.bincount(contexts, counts, parents)
    rest = np.divide(np.bincount(contexts, taken, parents), totals, out=np.ones(parents), where=totals > 0)
    share = np.divide(counts - taken, totals[contexts], out=np.zeros(len(keys)), where=totals[contexts] > 0)
    return Level(keys, np.append(share, 0.0), np.append(rest, 1.0), discounts)


def _discounts(counts: Longs) -> tuple[float, ...]:
    """D1, D2, D3+ from how many n-grams have count 1 to 4; FALLBACK where too few n-grams define them."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    if not n.all():
        return FALLBACK
    y = n[0] / (n[0] + 2 * n[1])
    found = tuple(float(k - (k + 1) * y * n[k] / n[k - 1]) for k in (1, 2, 3))
    return found if all(0 < d <= k for k, d in enumerate(found, 1)) else FALLBACK
