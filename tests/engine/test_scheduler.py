"""Blocks and sequences: nothing leaks, nothing is shared wrongly, everybody has a turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dialoop.engine.blocks import Blocks, extend_keys
from dialoop.engine.scheduler import MEMORY_BOUND, PATIENCE, Piece, Scheduler, Tokens

SIZE, COUNT, STEP, PLACES, LONGEST = 4, 12, 10, 4, 40


def right(draft: Sequence[int], said: Sequence[int]) -> int:
    """Tokens of the draft that are said, up to the first that is not."""
    return next((i for i, token in enumerate(draft) if said[i : i + 1] != [token]), len(draft))


class Serving(RuleBasedStateMachine):
    """A model that writes what it reads into blocks, as tokens; attention must find a sequence's own past.

    Drafts are read too: wrong ones must be nobody's past.
    """

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
        drafted=st.booleans(),
    )
    def arrive(self, prompt: list[int], priority: int, owner: str, drafted: bool) -> None:
        tokens = Tokens(prompt, priority=priority, owner=owner, longest=LONGEST if drafted else None)
        self.scheduler.add(tokens)
        self.alive.append(tokens)

    @precondition(lambda self: self.alive)
    @rule(said=st.lists(st.integers(0, 1), min_size=STEP, max_size=STEP))
    def step(self, said: list[int]) -> None:
        pieces = self.scheduler.schedule()
        assert pieces, "something waits or runs, and nothing moves"
        assert sum(map(len, pieces)) <= STEP
        assert len({id(piece.tokens) for piece in pieces}) == len(pieces) <= PLACES
        for piece in pieces:
            self.read(piece)
        for piece in pieces:
            self.scheduler.done(piece, said[: right(piece.draft, said) + 1] if piece.last else ())
            if len(piece.tokens.ids) >= LONGEST:
                self.leave(piece.tokens)

    def read(self, piece: Piece) -> None:
        tokens = piece.tokens
        assert 0 <= piece.start < piece.stop <= len(tokens.ids)
        assert not piece.draft or (piece.last and len(tokens.ids) + len(piece.draft) < LONGEST)
        for position, token in enumerate(piece.ids, piece.start):
            self.memory[tokens.blocks[position // SIZE]][position % SIZE] = (tokens.owner, token)
        assert self.past(tokens, piece.stop) == [(tokens.owner, t) for t in tokens.ids[: piece.stop]]

    def past(self, tokens: Tokens, stop: int) -> list[tuple[str, int] | None]:
        return [self.memory[tokens.blocks[i // SIZE]][i % SIZE] for i in range(stop)]

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
    def between_steps_nobody_holds_more_than_its_own_past(self) -> None:
        for tokens in self.alive:
            assert len(tokens.blocks) == -(-tokens.computed // SIZE)
            assert self.past(tokens, tokens.computed) == [
                (tokens.owner, token) for token in tokens.ids[: tokens.computed]
            ]

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
            scheduler.done(piece, [7] if piece.last else ())
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


def follow(scheduler: Scheduler, texts: dict[Tokens, list[int]]) -> dict[Tokens, tuple[int, ...]]:
    """One step, in which each sequence goes on along its text; the drafts that were read."""
    drafts = {}
    for piece in scheduler.schedule():
        rest = texts[piece.tokens][len(piece.tokens.ids) :]
        scheduler.done(piece, rest[: right(piece.draft, rest) + 1] if piece.last else ())
        drafts[piece.tokens] = piece.draft
    return drafts


LOOP, FRESH = [*range(20)] * 30, [*range(1000, 1600)]


def begun(scheduler: Scheduler, *texts: list[int]) -> dict[Tokens, list[int]]:
    """Sequences that will say these texts, their first 50 tokens read."""
    sequences = {Tokens(text[:50], longest=len(text)): text for text in texts}
    for tokens in sequences:
        scheduler.add(tokens)
    assert set(follow(scheduler, sequences).values()) == {()}  # beside a prompt none is free
    return sequences


def test_a_draft_grows_while_it_is_right_to_the_bound_and_ends_when_it_is_wrong() -> None:
    scheduler = Scheduler(Blocks(100, 4), step_tokens=1000, max_running=4)
    copying = begun(scheduler, LOOP[:150] + FRESH[:100] + [7] * 9)
    (tokens,) = copying
    lengths = []
    while len(tokens.ids) < 150:
        lengths += map(len, follow(scheduler, copying).values())
    assert lengths == sorted(lengths)
    assert lengths[-1] == MEMORY_BOUND - 1
    after = [follow(scheduler, copying)[tokens] for _ in range(100)]
    assert not any(after[1:])


def test_many_sequences_side_by_side_have_no_drafts_until_some_have_left() -> None:
    scheduler = Scheduler(Blocks(3000, 4), step_tokens=1000, max_running=99, sharing=False)
    copying = begun(scheduler, *[LOOP] * MEMORY_BOUND)
    assert not any(any(follow(scheduler, copying).values()) for _ in range(20))
    for tokens in list(copying)[4:]:
        scheduler.remove(tokens)
    assert [len(draft) for draft in follow(scheduler, copying).values()] == [3, 3, 3, 3]


def test_the_more_sequences_go_on_the_surer_a_draft_must_be() -> None:
    for count, steps_without in ((1, 1), (8, 1), (12, 3)):
        scheduler = Scheduler(Blocks(3000, 4), step_tokens=1000, max_running=99, sharing=False)
        copying = begun(scheduler, *[LOOP] * count)
        steps = [any(follow(scheduler, copying).values()) for _ in range(8)]
        assert steps.index(True) == steps_without


def test_what_one_sequence_leaves_of_the_room_for_drafts_the_others_take() -> None:
    scheduler = Scheduler(Blocks(3000, 4), step_tokens=1000, max_running=9, sharing=False)
    mixed = begun(scheduler, LOOP, FRESH, LOOP)
    for _ in range(20):
        drafts = follow(scheduler, mixed)
    assert sorted(map(len, drafts.values())) == [0, 6, 7]


def test_a_draft_ends_where_no_block_is_left_and_drives_nobody_out() -> None:
    scheduler = Scheduler(Blocks(7, 4), step_tokens=100, max_running=4)
    copying, other = Tokens([5] * 9, longest=99), Tokens([6])
    for tokens in (copying, other):
        scheduler.add(tokens)
    longest = 0
    while len(copying.ids) < 20:
        before = len(other.ids)
        drafts = follow(scheduler, {copying: [5] * 20, other: [6] * 9})
        longest = max(longest, len(drafts[copying]))
        assert len(other.ids) == before + 1
    assert longest > 2
    assert scheduler.preemptions == 0


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
