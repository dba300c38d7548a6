"""Drawing the next token."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from dialoop.engine.constrain import Constraint
from dialoop.engine.penalties import Penalties
from dialoop.engine.sampler import choose, distribution, generator, invert, tempered
from dialoop.types import Sampling

LOGITS = torch.tensor([1.0, 0.0, 2.5, -1.0, 2.4])


@dataclass
class Drawing:
    """A row that is drawn again and again."""

    sampling: Sampling
    chance: random.Random = field(default_factory=random.Random)
    penalties: Penalties | None = None
    constraint: Constraint | None = None


def drawing(
    sampling: Sampling, index: int = 0, prompt: Sequence[int] = (), answer: Sequence[int] = ()
) -> Drawing:
    penalties = Penalties.of(sampling, prompt, {0})
    row = Drawing(sampling, generator(sampling, index), penalties)
    for token in answer if penalties else ():
        row.penalties.add(token)  # type: ignore[union-attr]
    return row


def counts(sampling: Sampling, draws: int) -> list[int]:
    row = drawing(sampling)
    seen = [0] * len(LOGITS)
    for _ in range(draws):
        seen[choose(LOGITS[None], [row])[0].token] += 1
    return seen


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature: float) -> None:
    seen = counts(Sampling(temperature=temperature, seed=11), 4000)
    expected = torch.softmax(LOGITS.double() / temperature, -1) * 4000
    assert stats.chisquare(seen, expected.tolist()).pvalue > 0.001


FILTERS = [
    (Sampling(top_p=0.8, seed=5), {2, 4}), (Sampling(top_k=3, seed=5), {0, 2, 4}),
    (Sampling(min_p=0.2, seed=5), {0, 2, 4}), (Sampling(typical_p=0.6, seed=5), {2, 4}),
]  # fmt: skip


@pytest.mark.parametrize(("sampling", "kept"), FILTERS)
def test_what_a_filter_keeps_is_drawn_from_and_renormalised(sampling: Sampling, kept: set[int]) -> None:
    seen = counts(sampling, 4000)
    probabilities = torch.softmax(LOGITS.double(), -1)
    assert {token for token, count in enumerate(seen) if count} == kept
    chosen = sorted(kept)
    expected = probabilities[chosen] / probabilities[chosen].sum() * 4000
    assert stats.chisquare([seen[token] for token in chosen], expected.tolist()).pvalue > 0.001


@pytest.mark.parametrize(
    ("top_p", "nucleus"),
    [(0.0, {0}), (0.5, {0}), (0.500001, {0, 1}), (0.75, {0, 1}), (0.8, {0, 1, 2}), (1.0, {0, 1, 2, 3})],
)
def test_the_nucleus_is_the_fewest_tokens_that_hold_top_p(top_p: float, nucleus: set[int]) -> None:
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).double().log()
    kept = distribution(logits, [Sampling(top_p=top_p)])[0]
    assert set(kept.nonzero().flatten().tolist()) == nucleus


logits_rows = st.integers(0, 2**32).map(
    lambda seed: torch.randn(30, generator=torch.Generator().manual_seed(seed)) * 3
)


@settings(deadline=None, max_examples=60)
@given(
    logits_rows,
    st.floats(0.2, 2),
    st.integers(0, 40),
    st.floats(0.05, 1),
    st.floats(0, 0.5),
    st.floats(0.2, 1),
)
def test_the_distribution_is_that_of_transformers_warpers(
    logits: Tensor, heat: float, top_k: int, top_p: float, min_p: float, typical_p: float
) -> None:
    sampling = Sampling(temperature=heat, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(heat)])
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    warpers += [MinPLogitsWarper(min_p)] if min_p else []
    warpers += [TypicalLogitsWarper(typical_p)] if typical_p < 1 else []
    wanted = torch.softmax(warpers(torch.zeros(1, 1, dtype=torch.long), logits[None].double()), -1)
    torch.testing.assert_close(distribution(logits[None], [sampling]), wanted, atol=1e-9, rtol=1e-6)


def told(sampling: Sampling, logits: Tensor, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """The processed log-probabilities of a row at temperature 0."""
    asked = replace(sampling, temperature=0.0, logprobs=len(logits), processed_logprobs=True)
    (choice,) = choose(logits[None], [drawing(asked, prompt=prompt, answer=answer)])
    logs = torch.full_like(logits, -math.inf)
    for token, logprob in choice.top:
        logs[token] = logprob
    return logs


tokens = st.lists(st.integers(0, 29), max_size=12)


@settings(deadline=None, max_examples=40)
@given(logits_rows, tokens, tokens, st.floats(0.5, 2))
def test_the_repetition_penalty_is_that_of_transformers(
    logits: Tensor, prompt: list[int], answer: list[int], factor: float
) -> None:
    seen = torch.tensor([[*prompt, *answer]], dtype=torch.long)
    wanted = RepetitionPenaltyLogitsProcessor(factor)(seen, logits[None].clone())[0].log_softmax(-1)
    got = told(Sampling(repetition_penalty=factor), logits, prompt, answer)
    torch.testing.assert_close(got, wanted)


@settings(deadline=None, max_examples=40)
@given(logits_rows, tokens, tokens, st.floats(-2, 2), st.floats(-2, 2))
def test_presence_and_frequency_are_counted_in_the_answer_alone(
    logits: Tensor, prompt: list[int], answer: list[int], presence: float, frequency: float
) -> None:
    lowered = [
        float(logit) - (presence if token in answer else 0) - frequency * answer.count(token)
        for token, logit in enumerate(logits)
    ]
    got = told(Sampling(presence_penalty=presence, frequency_penalty=frequency), logits, prompt, answer)
    torch.testing.assert_close(got, torch.tensor(lowered).log_softmax(-1), atol=1e-5, rtol=1e-5)


def test_a_bias_is_added_before_anything_is_drawn() -> None:
    always = Sampling(temperature=2.0, logit_bias=((3, 100.0),))
    assert {choose(LOGITS[None], [drawing(always)])[0].token for _ in range(50)} == {3}
    never = Sampling(temperature=0, logit_bias=((2, -100.0),))
    assert choose(LOGITS[None], [drawing(never)])[0].token == 4


def test_what_ends_an_answer_is_not_drawn_before_it_has_its_least_tokens() -> None:
    logits = torch.tensor([[9.0, 0.0, 1.0]])
    sampling = Sampling(temperature=0, min_tokens=2)
    chosen = [choose(logits, [drawing(sampling, answer=[1] * n)])[0].token for n in range(3)]
    assert chosen == [2, 2, 0]


def test_log_probabilities_are_the_models_or_those_drawn_from() -> None:
    sampling = Sampling(temperature=0.5, top_k=2, logit_bias=((4, 1.0),), logprobs=3, seed=1)
    (raw,) = choose(LOGITS[None], [drawing(sampling)])
    logs = LOGITS.log_softmax(-1)
    assert [token for token, _ in raw.top] == [2, 4, 0]
    assert raw.logprob == pytest.approx(float(logs[raw.token]))
    (used,) = choose(LOGITS[None], [drawing(replace(sampling, processed_logprobs=True))])
    pair = torch.tensor([2.5, 3.4]).div(0.5).log_softmax(-1)
    assert dict(used.top)[2] == pytest.approx(float(pair[0]))
    assert dict(used.top)[4] == pytest.approx(float(pair[1]))
    assert used.top[2][1] == -math.inf


def test_temperature_zero_is_the_argmax_and_uses_no_chance() -> None:
    row = Drawing(Sampling(temperature=0), random.Random(3))
    before = row.chance.getstate()
    assert choose(LOGITS[None], [row])[0].token == 2
    assert row.chance.getstate() == before


def test_a_tiny_temperature_is_the_argmax_and_not_a_nan() -> None:
    probabilities = tempered(torch.tensor([[1e4, 0.0, -1e4]]), [1e-300])
    assert probabilities.tolist() == [[1.0, 0.0, 0.0]]


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf]])
    for top_p in (1.0, 0.9):
        probabilities = distribution(logits, [Sampling(top_p=top_p)]).expand(3, -1)
        chances = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
        assert invert(probabilities, chances).tolist() == [1, 1, 1]


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.8]),
    top_p=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 1000]),
    min_p=st.sampled_from([0.0, 0.1]),
    typical_p=st.sampled_from([0.5, 1.0]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, -0.4]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.sampled_from([(), ((3, -2.0), (7, 2.0))]),
    min_tokens=st.sampled_from([0, 5]),
    logprobs=st.sampled_from([None, 0, 4]),
    processed_logprobs=st.booleans(),
    seed=st.integers(0, 9),
)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.lists(samplings, min_size=1, max_size=6), tokens, tokens)
def test_a_row_is_drawn_alike_alone_and_among_others(
    seed: int, asked: list[Sampling], prompt: list[int], answer: list[int]
) -> None:
    logits = torch.randn(len(asked), 40, generator=torch.Generator().manual_seed(seed))
    kept = logits.clone()
    rows = [drawing(sampling, i, prompt, answer) for i, sampling in enumerate(asked)]
    alone = [
        choose(logits[i : i + 1], [drawing(sampling, i, prompt, answer)])[0]
        for i, sampling in enumerate(asked)
    ]
    assert choose(logits, rows) == alone
    assert torch.equal(logits, kept)


def test_answers_to_one_prompt_draw_from_different_chances() -> None:
    sampling = Sampling(seed=1)
    assert generator(sampling, 0).random() != generator(sampling, 1).random()
    assert generator(sampling, 0).random() == generator(sampling, 0).random()
