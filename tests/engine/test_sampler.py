"""Drawing the next token."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dialoop.engine.sampler import choose, draw, generator, tempered
from dialoop.types import Sampling

LOGITS = torch.tensor([1.0, 0.0, 2.5, -1.0, 2.4])


def counts(sampling: Sampling, draws: int) -> list[int]:
    chance = generator(sampling, 0)
    seen = [0] * len(LOGITS)
    for _ in range(draws):
        seen[choose(LOGITS[None], [sampling], [chance])[0]] += 1
    return seen


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature: float) -> None:
    seen = counts(Sampling(temperature=temperature, seed=11), 4000)
    expected = torch.softmax(LOGITS.double() / temperature, -1) * 4000
    assert stats.chisquare(seen, expected.tolist()).pvalue > 0.001


def test_the_nucleus_alone_is_drawn_from_and_renormalised() -> None:
    seen = counts(Sampling(top_p=0.8, seed=5), 4000)
    probabilities = torch.softmax(LOGITS.double(), -1)
    assert seen[0] == seen[1] == seen[3] == 0
    pair = probabilities[[2, 4]] / probabilities[[2, 4]].sum() * 4000
    assert stats.chisquare([seen[2], seen[4]], pair.tolist()).pvalue > 0.001


@pytest.mark.parametrize(
    ("top_p", "nucleus"),
    [(0.0, {0}), (0.5, {0}), (0.500001, {0, 1}), (0.75, {0, 1}), (0.8, {0, 1, 2}), (1.0, {0, 1, 2, 3})],
)
def test_the_nucleus_is_the_fewest_tokens_that_hold_top_p(top_p: float, nucleus: set[int]) -> None:
    probabilities = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    chances = [i / 64 for i in range(64)]
    drawn = {draw(probabilities, top_p, chance) for chance in chances}
    assert drawn == nucleus


def test_temperature_zero_is_the_argmax_and_uses_no_chance() -> None:
    chance = random.Random(3)
    before = chance.getstate()
    assert choose(LOGITS[None], [Sampling(temperature=0)], [chance]) == [2]
    assert chance.getstate() == before


def test_a_tiny_temperature_is_the_argmax_and_not_a_nan() -> None:
    probabilities = tempered(torch.tensor([[1e4, 0.0, -1e4]]), [1e-300])
    assert probabilities.tolist() == [[1.0, 0.0, 0.0]]


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf])
    probabilities = tempered(logits[None], [1.0])[0]
    for chance in (0.0, 0.5, 1 - 2**-53):
        assert draw(probabilities, 1.0, chance) == draw(probabilities, 0.9, chance) == 1


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.floats(0.1, 2), st.floats(0, 1))
def test_a_row_is_drawn_alike_alone_and_among_others(seed: int, rows: int, heat: float, top_p: float) -> None:
    logits = torch.randn(rows, 40, generator=torch.Generator().manual_seed(seed))
    sampling = Sampling(temperature=heat, top_p=top_p, seed=seed)
    together = choose(logits, [sampling] * rows, [generator(sampling, i) for i in range(rows)])
    alone = [choose(logits[i : i + 1], [sampling], [generator(sampling, i)])[0] for i in range(rows)]
    assert together == alone


def test_answers_to_one_prompt_draw_from_different_chances() -> None:
    sampling = Sampling(seed=1)
    assert generator(sampling, 0).random() != generator(sampling, 1).random()
    assert generator(sampling, 0).random() == generator(sampling, 0).random()
