"""ROUGE (Lin 2004) of one answer: rouge-score's own numbers on the same tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence


def rouge_n(n: int, said: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """F1 of n-grams in common, 0 to 1."""
    mine, theirs = _grams(said, n), _grams(right, n)
    most = len(mine) + len(theirs)
    if not most:
        return 0.0
    counts, common = Counter(mine), 0
    for gram in theirs:
        if counts.get(gram, 0) > 0:
            counts[gram] -= 1
            common += 1
    return 2 * common / most


def _grams(tokens: Sequence[Hashable], n: int) -> Sequence[Hashable]:
    return tokens if n == 1 else [*zip(*(tokens[i:] for i in range(n)), strict=False)]


def rouge_l(said: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """F1 of the longest common subsequence, 0 to 1."""
    most = len(said) + len(right)
    return 2 * common_length(said, right) / most if said and right else 0.0


def common_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a bit for each place of `first` (Hyyrö 2004)."""
    masks: dict[Hashable, int] = {}
    for place, token in enumerate(first):
        masks[token] = masks.get(token, 0) | 1 << place
    full = state = (1 << len(first)) - 1
    for token in second:
        if match := state & masks.get(token, 0):
            state = (state + match | state - match) & full
    return len(first) - state.bit_count()
