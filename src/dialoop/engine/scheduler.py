"""Which tokens of which sequences the model reads next: continuous batching with chunked prefill.

Yu et al. 2022 (Orca, OSDI) and Agrawal et al. 2023, arXiv:2308.16369. Pure bookkeeping; no tensors.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

from dialoop.engine.blocks import Blocks, extend_keys

PATIENCE = 64
"""Later arrivals that one step of priority lets pass: low priority waits, but never for ever."""


class Tokens:
    """One sequence as the scheduler sees it: its tokens, how many of them are computed, and its blocks.

    priority: lower goes first.  owner: what else than the tokens decides their keys and values, such as an
    adapter.  cached: tokens that were found computed when it was first admitted.
    """

    def __init__(self, prompt: Sequence[int], *, priority: int = 0, owner: str = "") -> None:
        self.ids = list(prompt)
        self.priority = priority
        self.owner = owner
        self.place = 0
        self.computed = 0
        self.cached: int | None = None
        self.blocks: list[int] = []
        self.keys: list[bytes] = []


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens [start, stop) of a sequence, read in one step."""

    tokens: Tokens
    start: int
    stop: int

    @property
    def last(self) -> bool:
        """Whether the sequence's next token follows from this piece."""
        return self.stop == len(self.tokens.ids)

    def __len__(self) -> int:
        return self.stop - self.start


class Scheduler:
    """Sequences wait, run and leave; all blocks together must hold the longest of them.

    step_tokens: the most tokens of one step.  max_running: the most sequences of one step.
    sharing: sequences that begin alike hold the same blocks.
    """

    def __init__(self, blocks: Blocks, *, step_tokens: int, max_running: int, sharing: bool = True) -> None:
        self._blocks = blocks
        self._step_tokens = step_tokens
        self._max_running = max_running
        self._sharing = sharing
        self._arrivals = 0
        self._coming: dict[bytes, Tokens] = {}
        self.waiting: list[Tokens] = []
        self.running: list[Tokens] = []
        self.preemptions = 0

    def add(self, tokens: Tokens) -> None:
        """A new sequence waits its turn."""
        self._arrivals += 1
        tokens.place = self._arrivals + PATIENCE * tokens.priority
        insort(self.waiting, tokens, key=_place)

    def remove(self, tokens: Tokens) -> None:
        """A sequence has ended or was given up: its blocks are free at once."""
        (self.running if tokens in self.running else self.waiting).remove(tokens)
        self._let_go(tokens)

    def schedule(self) -> list[Piece]:
        """The next step: one token for each sequence that decodes, then prompts as far as the budget goes.

        A sequence that finds no block takes those of the last in line, which will be computed again.
        """
        planned: dict[Tokens, Piece] = {}
        before = self.preemptions
        for tokens in sorted(self.running, key=lambda t: (len(t.ids) - t.computed > 1, t.place)):
            budget = self._step_tokens - sum(map(len, planned.values()))
            if tokens in self.running and budget:
                stop = min(len(tokens.ids), tokens.computed + budget)
                if self._make_room(tokens, stop, planned):
                    planned[tokens] = Piece(tokens, tokens.computed, stop)
        if self.preemptions == before:
            self._admit(planned)
        return list(planned.values())

    def done(self, piece: Piece) -> None:
        """The piece is computed: its full blocks may be found by others."""
        tokens, size = piece.tokens, self._blocks.size
        tokens.computed = piece.stop
        self._extend_keys(tokens)
        for i in range(piece.start // size, min(piece.stop // size, len(tokens.keys))):
            self._blocks.publish(tokens.blocks[i], tokens.keys[i])
            self._coming.pop(tokens.keys[i], None)

    def _extend_keys(self, tokens: Tokens) -> None:
        if self._sharing:
            extend_keys(tokens.keys, tokens.ids, self._blocks.size, tokens.owner)

    def _make_room(self, tokens: Tokens, stop: int, planned: dict[Tokens, Piece]) -> bool:
        """Blocks for [0, stop); False where the sequence itself had to give its own up."""
        wanted = -(-stop // self._blocks.size) - len(tokens.blocks)
        while wanted > self._blocks.available:
            victim = self.running[-1]
            self._preempt(victim)
            planned.pop(victim, None)
            if victim is tokens:
                return False
        tokens.blocks += self._blocks.take(max(wanted, 0))
        return True

    def _preempt(self, tokens: Tokens) -> None:
        self.preemptions += 1
        self.running.remove(tokens)
        self._let_go(tokens)
        insort(self.waiting, tokens, key=_place)

    def _let_go(self, tokens: Tokens) -> None:
        self._blocks.release(tokens.blocks)
        self._coming = {key: owner for key, owner in self._coming.items() if owner is not tokens}
        tokens.blocks, tokens.computed = [], 0

    def _admit(self, planned: dict[Tokens, Piece]) -> None:
        """Waiting sequences in line, as far as places, budget and blocks go.

        One whose next block another sequence is computing waits for that and lets others pass.
        """
        for tokens in list(self.waiting):
            budget = self._step_tokens - sum(map(len, planned.values()))
            if len(self.running) >= self._max_running or not budget:
                return
            self._extend_keys(tokens)
            usable = tokens.keys[: (len(tokens.ids) - 1) // self._blocks.size]
            known = self._blocks.known(usable)
            if any(key in self._coming for key in usable[len(known) : len(known) + 1]):
                continue
            start = len(known) * self._blocks.size
            stop = min(len(tokens.ids), start + budget)
            wanted = -(-stop // self._blocks.size) - len(known)
            if wanted + self._blocks.idle(known) > self._blocks.available:
                return
            self._start(tokens, known, wanted)
            planned[tokens] = Piece(tokens, start, stop)

    def _start(self, tokens: Tokens, known: list[int], wanted: int) -> None:
        self._blocks.hold(known)
        tokens.blocks = known + self._blocks.take(wanted)
        tokens.computed = len(known) * self._blocks.size
        tokens.cached = tokens.computed if tokens.cached is None else tokens.cached
        for key in tokens.keys[len(known) :]:
            self._coming.setdefault(key, tokens)
        self.waiting.remove(tokens)
        insort(self.running, tokens, key=_place)


def _place(tokens: Tokens) -> int:
    return tokens.place
