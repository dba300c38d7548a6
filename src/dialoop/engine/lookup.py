"""Guesses at how a sequence goes on: as it went on the last time that its last tokens stood in it.

Prompt lookup: Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding; Yang et al. 2023, arXiv:2304.04487.
Pure bookkeeping; no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

ORDERS = (3, 2)
"""So many last tokens must have stood there before; the longest match is taken, the most recent of those."""
FIRST_RATE = 0.3
PREDICTED_RATE = 0.9
"""Where a request tells what its answer may look like."""
WEIGHT = 0.25
"""Of the newest guess in the rate of right ones: about the last eight count."""


class Lookup:
    """Drafts for the sequence whose tokens are `ids`, a list that grows at its end, up to `longest` tokens.

    prediction: what it may go on like, from the answer's beginning.
    What it would have guessed is held against every token that comes, drafted or not: text that copies
    nothing costs no step of the model, and copying is noticed within a few tokens. O(1) a token.
    """

    def __init__(self, ids: list[int], longest: int, prediction: Sequence[int] = ()) -> None:
        self._ids = ids
        self._longest = longest
        self._prompt = len(ids)
        self._read = ORDERS[0]
        self._after: dict[tuple[int, ...], tuple[list[int], int]] = {}
        self._rate = PREDICTED_RATE if prediction else FIRST_RATE
        self._predicted = [*ids[-ORDERS[0] :], *prediction] if prediction else []

    def propose(self, most: int, *, start: float, odds: float) -> tuple[int, ...]:
        """At most `most` tokens, and only as many as are all right with a probability of `odds` or more;
        none while fewer than `start` of the guesses come true.
        """
        self._catch_up()
        found = self._find(len(self._ids))
        if found is None or self._rate < start:
            return ()
        count = self._likely(min(most, self._longest - len(self._ids) - 1), odds)
        known, place = found
        guess = known[place : place + count]
        # A match near the end goes on into the draft itself: a loop is followed round.
        return tuple(islice(cycle(guess), count)) if known is self._ids else tuple(guess)

    def _likely(self, most: int, odds: float) -> int:
        count, all_right = 0, self._rate
        while count < most and all_right >= odds:
            count, all_right = count + 1, all_right * self._rate
        return count

    def _catch_up(self) -> None:
        self._note(self._ids, self._read, min(self._prompt, len(self._ids)))
        # What is predicted stands between the prompt and the answer: it is what was read last.
        self._note(self._predicted, ORDERS[-1], len(self._predicted))
        self._predicted = []
        for i in range(max(self._read, self._prompt), len(self._ids)):
            if (found := self._find(i)) is not None:
                known, place = found
                self._rate += WEIGHT * ((known[place] == self._ids[i]) - self._rate)
            self._note(self._ids, i, i + 1)
        self._read = max(self._read, len(self._ids))

    def _note(self, known: list[int], start: int, stop: int) -> None:
        """What stands before each place of [start, stop)."""
        for i in range(start, stop):
            for order in ORDERS:
                if i >= order:
                    self._after[tuple(known[i - order : i])] = (known, i)

    def _find(self, stop: int) -> tuple[list[int], int] | None:
        """Where what followed the last tokens of [0, stop) when they stood there before stands."""
        for order in ORDERS:
            found = self._after.get(tuple(self._ids[stop - order : stop]))
            if found is not None:
                return found
        return None
