"""Blocks and sequences: nothing leaks, nothing is shared wrongly, everybody has a turn."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dialoop.engine.blocks import Blocks, extend_keys
from dialoop.engine.scheduler import PATIENCE, Piece, Scheduler, Tokens

SIZE, COUNT, STEP, PLACES, LONGEST = 4, 12, 10, 4, 40


class Serving(RuleBasedStateMachine):
    """A model that writes what it reads into blocks, as tokens; attention must find a sequence's own past."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks(COUNT, SIZE)
        self.scheduler = Scheduler(self.blocks, step_tokens=STEP, max_running=PLACES)
        self.memory: list[list[tuple[str, int] | None]] = [[None] * SIZE for _ in range(COUNT)]
        self.alive: list[Tokens] = []

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=30),
        priority=st.integers(-1, 1),
        owner=st.sampled_from(["", "adapter"]),
    )
    def arrive(self, prompt: list[int], priority: int, owner: str) -> None:
        tokens = Tokens(prompt, priority=priority, owner=owner)
        self.scheduler.add(tokens)
        self.alive.append(tokens)

    @precondition(lambda self: self.alive)
    @rule(token=st.integers(0, 1))
    def step(self, token: int) -> None:
        pieces = self.scheduler.schedule()
        assert pieces, "something waits or runs, and nothing moves"
        assert sum(map(len, pieces)) <= STEP
        assert len({id(piece.tokens) for piece in pieces}) == len(pieces) <= PLACES
        for piece in pieces:
            self.read(piece)
        for piece in pieces:
            self.scheduler.done(piece)
            if piece.last:
                self.say(piece.tokens, token)

    def read(self, piece: Piece) -> None:
        tokens = piece.tokens
        assert 0 <= piece.start < piece.stop <= len(tokens.ids)
        for position in range(piece.start, piece.stop):
            block = tokens.blocks[position // SIZE]
            self.memory[block][position % SIZE] = (tokens.owner, tokens.ids[position])
        past = [self.memory[tokens.blocks[i // SIZE]][i % SIZE] for i in range(piece.stop)]
        assert past == [(tokens.owner, token) for token in tokens.ids[: piece.stop]]

    def say(self, tokens: Tokens, token: int) -> None:
        tokens.ids.append(token)
        if len(tokens.ids) >= LONGEST:
            self.leave(tokens)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.sampled_from(self.alive)))

    def leave(self, tokens: Tokens) -> None:
        self.scheduler.remove(tokens)
        self.alive.remove(tokens)
        assert tokens.blocks == []

    @invariant()
    def every_block_is_held_as_often_as_it_is_used(self) -> None:
        used = Counter(block for tokens in self.alive for block in tokens.blocks)
        assert self.blocks.available == COUNT - len(used)
        assert len(self.scheduler.waiting) + len(self.scheduler.running) == len(self.alive)

    @invariant()
    def a_block_that_is_written_has_one_holder(self) -> None:
        used = Counter(block for tokens in self.alive for block in tokens.blocks)
        for tokens in self.scheduler.running:
            unfinished = tokens.blocks[tokens.computed // SIZE :]
            assert all(used[block] == 1 for block in unfinished)


TestServing = Serving.TestCase
TestServing.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)


def run(scheduler: Scheduler, until: int) -> list[list[tuple[int, int]]]:
    """(place in line, tokens) of each piece, step by step; each sequence says 7 when it may."""
    steps = []
    for _ in range(until):
        pieces = scheduler.schedule()
        steps.append([(piece.tokens.place, len(piece)) for piece in pieces])
        for piece in pieces:
            scheduler.done(piece)
            if piece.last:
                piece.tokens.ids.append(7)
    return steps


def test_a_long_prompt_is_read_in_chunks_while_others_go_on() -> None:
    scheduler = Scheduler(Blocks(100, 4), step_tokens=8, max_running=4)
    scheduler.add(Tokens([1] * 3))
    scheduler.add(Tokens([2] * 20))
    assert run(scheduler, 5) == [[(1, 3), (2, 5)], *[[(1, 1), (2, 7)]] * 2, *[[(1, 1), (2, 1)]] * 2]


def test_a_prefix_that_was_read_is_not_read_again() -> None:
    scheduler = Scheduler(Blocks(100, 4), step_tokens=100, max_running=4)
    first, second = Tokens([*range(11)]), Tokens([*range(9), 50])
    scheduler.add(first)
    run(scheduler, 1)
    scheduler.remove(first)
    scheduler.add(second)
    assert run(scheduler, 1) == [[(2, 2)]]
    assert (first.cached, second.cached) == (0, 8)


def test_the_same_prefix_arriving_at_once_is_read_once() -> None:
    scheduler = Scheduler(Blocks(100, 4), step_tokens=100, max_running=8)
    for last in range(5):
        scheduler.add(Tokens([*range(40), last]))
    first, second = run(scheduler, 2)
    assert first == [(1, 41)]
    assert sorted(second) == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]


def test_one_owner_never_reads_anothers_blocks() -> None:
    scheduler = Scheduler(Blocks(100, 4), step_tokens=100, max_running=8)
    for owner in ("", "a", "b"):
        scheduler.add(Tokens([1] * 9, owner=owner))
    assert run(scheduler, 1) == [[(1, 9), (2, 9), (3, 9)]]


def test_the_last_in_line_gives_its_blocks_up_and_comes_back() -> None:
    scheduler = Scheduler(Blocks(6, 4), step_tokens=100, max_running=4)
    early, late = Tokens([1] * 11), Tokens([2] * 11)
    scheduler.add(early)
    scheduler.add(late)
    run(scheduler, 3)
    assert scheduler.running == [early]
    assert scheduler.waiting == [late]
    assert scheduler.preemptions == 1
    scheduler.remove(early)
    run(scheduler, 1)
    assert late.computed == len(late.ids) - 1


def test_priority_lets_pass_and_low_priority_has_its_turn_too() -> None:
    scheduler = Scheduler(Blocks(4, 4), step_tokens=100, max_running=1)
    busy, low, high = Tokens([1]), Tokens([2], priority=1), Tokens([3], priority=-1)
    for tokens in (busy, low, high):
        scheduler.add(tokens)
    assert scheduler.waiting == [high, busy, low]
    for _ in range(PATIENCE + 1):
        scheduler.add(Tokens([4]))
    assert scheduler.waiting.index(low) < len(scheduler.waiting) - 1


def test_more_blocks_than_there_are_cannot_be_taken() -> None:
    with pytest.raises(ValueError, match="3 blocks wanted, 2 available"):
        Blocks(2, 4).take(3)


def test_keys_tell_the_tokens_before_apart() -> None:
    def keys(tokens: list[int], owner: str = "") -> list[bytes]:
        made: list[bytes] = []
        extend_keys(made, tokens, 2, owner)
        return made

    assert keys([1, 2, 3, 4, 5]) == keys([1, 2, 3, 4])
    assert keys([1, 2, 3, 4])[1] != keys([9, 9, 3, 4])[1]
    assert keys([1, 2]) != keys([1, 2], "adapter")
