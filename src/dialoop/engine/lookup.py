"""Guesses at how a sequence goes on: as it went on the last time that its last tokens stood in it.

Prompt lookup: Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding; Yang et al. 2023, arXiv:2304.04487.
Pure bookkeeping; no tensors.
"""

from __future__ import annotations

from itertools import cycle, islice

ORDERS = (3, 2)
"""So many last tokens must have stood there before; the longest match is taken, the most recent of those."""
FIRST_RATE = 0.3
WEIGHT = 0.25
"""Of the newest guess in the rate of right ones: about the last eight count."""


class Lookup:
    """Drafts for the sequence whose tokens are `ids`, a list that grows at its end, up to `longest` tokens.

    What it would have guessed is held against every token that comes, drafted or not: text that copies
    nothing costs no step of the model, and copying is noticed within a few tokens. O(1) a token.
    """

    def __init__(self, ids: list[int], longest: int) -> None:
        self._ids = ids
        self._longest = longest
        self._prompt = len(ids)
        self._read = ORDERS[0]
        self._after: dict[tuple[int, ...], int] = {}
        self._rate = FIRST_RATE

    def propose(self, most: int, *, start: float, odds: float) -> tuple[int, ...]:
        """At most `most` tokens, and only as many as are all right with a probability of `odds` or more;
        none while fewer than `start` of the guesses come true.
        """
        self._catch_up()
        place = self._find(len(self._ids))
        if place is None or self._rate < start:
            return ()
        count = self._likely(min(most, self._longest - len(self._ids) - 1), odds)
        # A match near the end goes on into the draft itself: a loop is followed round.
        return tuple(islice(cycle(self._ids[place : place + count]), count))

    def _likely(self, most: int, odds: float) -> int:
        count, all_right = 0, self._rate
        while count < most and all_right >= odds:
            count, all_right = count + 1, all_right * self._rate
        return count

    def _catch_up(self) -> None:
        for i in range(self._read, len(self._ids)):
            if i >= self._prompt and (place := self._find(i)) is not None:
                self._rate += WEIGHT * ((self._ids[place] == self._ids[i]) - self._rate)
            for order in ORDERS:
                self._after[tuple(self._ids[i - order : i])] = i
        self._read = max(self._read, len(self._ids))

    def _find(self, stop: int) -> int | None:
        """What followed the last tokens of [0, stop) when they stood there before."""
        for order in ORDERS:
            place = self._after.get(tuple(self._ids[stop - order : stop]))
            if place is not None:
                return place
        return None
