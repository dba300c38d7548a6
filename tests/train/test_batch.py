"""Rows are packed without loss, and their order depends on seed and epoch alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dialoop.chat.render import Rendered
from dialoop.data.mix import epoch_order
from dialoop.models.packed import fill
from dialoop.train.batch import pack, windows
from dialoop.train.tune import RowsPlan
from tests.train.drill import recipe

sizes = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def row(first: int, length: int, context: int) -> Rendered:
    mask = tuple(float(i >= context) for i in range(length))
    return Rendered(tuple(range(first, first + length)), mask)


@given(sizes, st.integers(1, 60), st.integers(0, 9))
def test_filling_takes_every_row_once_in_order_and_keeps_to_the_capacity(
    lengths: list[int], capacity: int, seed: int
) -> None:
    order = epoch_order(len(lengths), seed, 0)
    batches = fill(lengths, order, capacity)
    assert [i for batch in batches for i in batch] == order.tolist()
    assert all(sum(lengths[i] for i in batch) <= capacity or len(batch) == 1 for batch in batches)


@given(sizes)
def test_packing_keeps_each_row_whole_and_never_aims_across_its_end(lengths: list[int]) -> None:
    starts = np.cumsum([0, *lengths])
    rows = [row(int(start), length, 1) for start, length in zip(starts, lengths, strict=False)]
    batch = pack(rows)
    assert sorted(batch.token_ids.tolist()) == list(range(sum(lengths)))
    place = 0
    for length in batch.lengths:
        ids, targets = (a[place : place + length] for a in (batch.token_ids, batch.targets))
        weights = batch.weights[place : place + length]
        assert targets[:-1].tolist() == ids[1:].tolist()
        assert weights.tolist() == [1.0] * (length - 1) + [0.0]
        place += length
    assert sorted(batch.lengths) == sorted(lengths)


def test_weights_move_with_the_token_that_they_judge() -> None:
    batch = pack([Rendered((10, 11, 12, 13), (0.0, 0.0, 0.5, 2.0))])
    assert batch.targets.tolist() == [11, 12, 13, 0]
    assert batch.weights.tolist() == [0.0, 0.5, 2.0, 0.0]


def test_windows_aim_at_the_token_after_their_end() -> None:
    batch = windows([np.arange(5), np.arange(10, 15)])
    assert batch.token_ids.tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert batch.targets.tolist() == [1, 2, 3, 4, 11, 12, 13, 14]
    assert batch.lengths == (4, 4)


@given(st.integers(1, 200), st.integers(0, 5), st.integers(0, 5))
def test_the_order_of_an_epoch_is_a_pure_function(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch).tolist()
    assert order == epoch_order(count, seed, epoch).tolist()
    assert sorted(order) == list(range(count))


def test_every_epoch_has_its_own_order() -> None:
    orders = {tuple(epoch_order(30, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(sizes, st.sampled_from([0.4, 1.0, 2.0, 2.5]), st.integers(1, 3))
def test_a_plan_of_rows_shows_each_row_once_an_epoch(lengths: list[int], epochs: float, group: int) -> None:
    rows = [row(100 * i, length, 0) for i, length in enumerate(lengths)]
    plan = RowsPlan(rows, recipe(train__epochs=epochs, train__accumulate=group))
    firsts = [int(f) // 100 for step in range(plan.steps) for f in begins(plan, step)]
    for epoch in range(int(epochs)):
        part = firsts[epoch * len(rows) : (epoch + 1) * len(rows)]
        assert sorted(part) == list(range(len(rows)))
    assert len(firsts) <= -(-epochs // 1) * len(rows)
    assert all(1 <= len(plan.batches(step)) <= group for step in range(plan.steps))


def begins(plan: RowsPlan, step: int) -> list[int]:
    """The first token of each row in an update."""
    found: list[int] = []
    for batch in plan.batches(step):
        starts = np.cumsum([0, *batch.lengths[:-1]])
        found += batch.token_ids[starts].tolist()
    return found


def test_without_packing_a_forward_pass_takes_one_row() -> None:
    plan = RowsPlan([row(100 * i, 5, 0) for i in range(7)], recipe(train__packing=False, train__accumulate=3))
    assert [len(plan.batches(step)) for step in range(3)] == [3, 3, 1]
    assert all(len(batch.lengths) == 1 for step in range(3) for batch in plan.batches(step))


def test_a_plan_draws_from_its_sources_by_their_weights() -> None:
    data = {"sources": ["a", "b"], "mix": {"weights": {"a": 3, "b": 0.5}}}
    plan = RowsPlan(
        [row(100 * i, 5, 0) for i in range(8)], recipe(data=data, train__epochs=1.0), ["a", "a", *["b"] * 6]
    )
    firsts = [int(f) // 100 for step in range(plan.steps) for f in begins(plan, step)]
    assert sorted(f for f in firsts if f < 2) == [0, 0, 0, 1, 1, 1]
    assert len([f for f in firsts if f >= 2]) == len({f for f in firsts if f >= 2}) == 3
