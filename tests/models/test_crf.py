"""The chain's sums and best paths are those of trying every sequence."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from dialoop.models.crf import Crf

TAGS = 3


def chain(seed: int) -> Crf:
    torch.manual_seed(seed)
    crf = Crf(TAGS)
    with torch.no_grad():
        for weight in crf.parameters():
            weight.normal_()
    return crf


def score(crf: Crf, emissions: Tensor, tags: tuple[int, ...]) -> Tensor:
    total = crf.first[tags[0]] + crf.last[tags[-1]] + sum(emissions[i, tag] for i, tag in enumerate(tags))
    return total + sum((crf.transitions[a, b] for a, b in pairwise(tags)), torch.zeros(()))


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_minus_the_log_of_the_share_of_the_right_sequence(seed: int) -> None:
    crf = chain(seed)
    lengths = (4, 1, 3)
    emissions, tags = torch.randn(3, 4, TAGS), torch.randint(0, TAGS, (3, 4))
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    found = crf.loss(emissions, tags, mask)
    for row, length in enumerate(lengths):
        every = torch.stack(
            [score(crf, emissions[row], each) for each in product(range(TAGS), repeat=length)]
        )
        right = score(crf, emissions[row], tuple(tags[row, :length].tolist()))
        torch.testing.assert_close(found[row], torch.logsumexp(every, 0) - right)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_best_path_is_the_best_of_all(seed: int, length: int) -> None:
    crf = chain(seed)
    emissions = torch.randn(length, TAGS)
    every = list(product(range(TAGS), repeat=length))
    best = max(every, key=lambda tags: float(score(crf, emissions, tags).detach()))
    assert tuple(crf.best(emissions)) == best


def test_a_chain_begins_as_a_softmax_of_each_word() -> None:
    emissions, tags = torch.randn(2, 3, TAGS), torch.randint(0, TAGS, (2, 3))
    alone = torch.nn.functional.cross_entropy(emissions.transpose(1, 2), tags, reduction="none").sum(1)
    torch.testing.assert_close(Crf(TAGS).loss(emissions, tags, torch.ones(2, 3, dtype=torch.bool)), alone)


def test_gradients_are_those_of_the_sum_over_all_sequences() -> None:
    crf = chain(1)
    emissions = torch.randn(1, 3, TAGS, requires_grad=True)
    crf.loss(emissions, torch.tensor([[0, 2, 1]]), torch.ones(1, 3, dtype=torch.bool)).backward()
    got = emissions.grad
    assert got is not None
    every = {t: score(crf, emissions[0].detach(), t) for t in product(range(TAGS), repeat=3)}
    shares = torch.softmax(torch.stack(list(every.values())), 0)
    wanted = torch.zeros(3, TAGS)
    for share, tags in zip(shares, every, strict=True):
        for place, tag in enumerate(tags):
            wanted[place, tag] += share.detach()
    for place, tag in enumerate((0, 2, 1)):
        wanted[place, tag] -= 1
    torch.testing.assert_close(got[0], wanted)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_words_share_is_that_of_all_sequences_that_give_it_the_tag(length: int) -> None:
    crf = chain(2)
    emissions = torch.randn(length, TAGS)
    every = list(product(range(TAGS), repeat=length))
    shares = torch.stack([score(crf, emissions, tags) for tags in every]).detach().softmax(0)
    wanted = torch.zeros(length, TAGS)
    for tags, share in zip(every, shares, strict=True):
        for word, tag in enumerate(tags):
            wanted[word, tag] += share
    torch.testing.assert_close(crf.marginals(emissions), wanted)
