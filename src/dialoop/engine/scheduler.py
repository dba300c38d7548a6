"""Which tokens of which sequences the model reads next: continuous batching with chunked prefill.

Yu et al. 2022 (Orca, OSDI) and Agrawal et al. 2023, arXiv:2308.16369. Pure bookkeeping; no tensors.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dialoop.engine.blocks import Blocks, extend_keys
from dialoop.engine.lookup import Lookup

PATIENCE = 64
"""Later arrivals that one step of priority lets pass: low priority waits, but never for ever."""
MEMORY_BOUND = 16
"""Tokens up to which a step takes little longer than with few: its time is that of fetching the weights.

At two multiply-adds a cycle on AVX2 a core does some 16 of them for each fp32 weight that memory brings.
"""
START = 0.5
"""Share of guesses that come true before a draft is made.

A step of several tokens may cost half a step more than of one: a matrix product beside a matrix by a vector.
"""
WORTH = 0.1
"""The least odds of each token of a draft: what one more costs beside a single sequence, in steps."""


class Tokens:
    """One sequence as the scheduler sees it: its tokens, how many of them are computed, and its blocks.

    priority: lower goes first.  owner: what else than the tokens decides their keys and values, such as an
    adapter.  longest: the most tokens that it may come to; drafts are made where that is told.
    prediction: as in `Lookup`.
    cached: tokens that were found computed when it was first admitted.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        *,
        priority: int = 0,
        owner: str = "",
        longest: int | None = None,
        prediction: Sequence[int] = (),
    ) -> None:
        self.ids = list(prompt)
        self.lookup = None if longest is None else Lookup(self.ids, longest, prediction)
        self.priority = priority
        self.owner = owner
        self.place = 0
        self.computed = 0
        self.cached: int | None = None
        self.blocks: list[int] = []
        self.keys: list[bytes] = []


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens [start, stop) of a sequence, and after them a draft of the next ones, read in one step."""

    tokens: Tokens
    start: int
    stop: int
    draft: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        """All that is read."""
        return [*self.tokens.ids[self.start : self.stop], *self.draft]

    @property
    def last(self) -> bool:
        """Whether the sequence's next token follows from this piece."""
        return self.stop == len(self.tokens.ids)

    def __len__(self) -> int:
        return self.stop - self.start + len(self.draft)


class _Plan:
    """The pieces of the next step. size: their tokens."""

    def __init__(self) -> None:
        self.pieces: dict[Tokens, Piece] = {}
        self.size = 0

    def put(self, piece: Piece) -> None:
        """In place of the sequence's piece, where there is one."""
        self.size += len(piece) - len(self.pieces.get(piece.tokens, ()))
        self.pieces[piece.tokens] = piece

    def drop(self, tokens: Tokens) -> None:
        self.size -= len(self.pieces.pop(tokens, ()))


class Scheduler:
    """Sequences wait, run and leave; all blocks together must hold the longest of them.

    step_tokens: the most tokens of one step.  max_running: the most sequences of one step.
    sharing: sequences that begin alike hold the same blocks.
    looked_up, found: tokens of prompts that blocks were looked for, and for which there were some.
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
        self.looked_up = self.found = 0

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
        """The next step: one token for each sequence that decodes, then prompts as far as the budget goes,
        then drafts where they cost next to nothing.

        A sequence that finds no block takes those of the last in line, which will be computed again.
        """
        plan = _Plan()
        before = self.preemptions
        for tokens in sorted(self.running, key=lambda t: (len(t.ids) - t.computed > 1, t.place)):
            budget = self._step_tokens - plan.size
            if tokens in self.running and budget:
                stop = min(len(tokens.ids), tokens.computed + budget)
                if self._make_room(tokens, stop, plan):
                    plan.put(Piece(tokens, tokens.computed, stop))
        if self.preemptions == before:
            self._admit(plan)
        self._draft(plan)
        return list(plan.pieces.values())

    def done(self, piece: Piece, said: Sequence[int] = ()) -> None:
        """The piece is computed and `said` follows it; all of that but its last token stood in the draft.

        Full blocks may be found by others; what the rest of the draft took is free again.
        """
        tokens, size = piece.tokens, self._blocks.size
        tokens.ids += said
        tokens.computed = piece.stop + max(len(said) - 1, 0)
        self._extend_keys(tokens)
        for i in range(piece.start // size, min(tokens.computed // size, len(tokens.keys))):
            self._blocks.publish(tokens.blocks[i], tokens.keys[i])
            self._coming.pop(tokens.keys[i], None)
        held = -(-tokens.computed // size)
        self._blocks.release(tokens.blocks[held:])
        del tokens.blocks[held:]

    def _extend_keys(self, tokens: Tokens) -> None:
        if self._sharing:
            extend_keys(tokens.keys, tokens.ids, self._blocks.size, tokens.owner)

    def _make_room(self, tokens: Tokens, stop: int, plan: _Plan) -> bool:
        """Blocks for [0, stop); False where the sequence itself had to give its own up."""
        wanted = -(-stop // self._blocks.size) - len(tokens.blocks)
        while wanted > self._blocks.available:
            victim = self.running[-1]
            self._preempt(victim)
            plan.drop(victim)
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

    def _admit(self, plan: _Plan) -> None:
        """Waiting sequences in line, as far as places, budget and blocks go.

        One whose next block another sequence is computing waits for that and lets others pass.
        """
        for tokens in list(self.waiting):
            budget = self._step_tokens - plan.size
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
            plan.put(Piece(tokens, start, stop))

    def _start(self, tokens: Tokens, known: list[int], wanted: int) -> None:
        self._blocks.hold(known)
        tokens.blocks = known + self._blocks.take(wanted)
        tokens.computed = len(known) * self._blocks.size
        if tokens.cached is None:
            tokens.cached = tokens.computed
            self.looked_up += len(tokens.ids)
            self.found += tokens.computed
        for key in tokens.keys[len(known) :]:
            self._coming.setdefault(key, tokens)
        self.waiting.remove(tokens)
        insort(self.running, tokens, key=_place)

    def _draft(self, plan: _Plan) -> None:
        """Drafts for the sequences whose next token follows, while the step stays bound by memory.

        The more tokens it has, the less one more sequence's step is worth, and the better the odds must be.
        """
        size = plan.size
        room = min(MEMORY_BOUND, self._step_tokens) - size
        if room <= 0:
            return
        odds = max(WORTH, size / MEMORY_BOUND)
        drafts: dict[Tokens, tuple[int, ...]] = {}
        for tokens, piece in plan.pieces.items():
            if (
                piece.last
                and tokens.lookup
                and (draft := tokens.lookup.propose(room, start=START, odds=odds))
            ):
                drafts[tokens] = draft
        for i, tokens in enumerate(sorted(drafts, key=lambda tokens: len(drafts[tokens]))):
            share = room // (len(drafts) - i)
            piece = self._with_draft(plan.pieces[tokens], drafts[tokens][:share])
            plan.put(piece)
            room -= len(piece.draft)

    def _with_draft(self, piece: Piece, draft: tuple[int, ...]) -> Piece:
        """Cut where no block is left: a draft drives nobody out."""
        tokens, size = piece.tokens, self._blocks.size
        draft = draft[: (len(tokens.blocks) + self._blocks.available) * size - piece.stop]
        wanted = -(-(piece.stop + len(draft)) // size) - len(tokens.blocks)
        tokens.blocks += self._blocks.take(max(wanted, 0))
        return replace(piece, draft=draft)


def _place(tokens: Tokens) -> int:
    return tokens.place
