"""The loss of the output matrix is torch's cross-entropy, with its gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from dialoop.train.loss import ROWS, cross_entropy


def made(rows: int, *, share: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """hidden, head, targets and weights, about `share` of which are not 0."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 12, generator=draw).to(dtype).requires_grad_()
    head = torch.randn(31, 12, generator=draw).to(dtype).requires_grad_()
    targets = torch.randint(0, 31, (rows,), generator=draw)
    weights = torch.rand(rows, generator=draw) * (torch.rand(rows, generator=draw) < share)
    return hidden, head, targets, weights


def reference(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    losses = functional.cross_entropy(hidden.float() @ head.float().t(), targets, reduction="none")
    return (losses * weights).sum()


@settings(max_examples=25)
@given(st.integers(1, 80), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 99))
def test_value_and_gradients_are_those_of_torch(rows: int, share: float, seed: int) -> None:
    check(made(rows, share=share, seed=seed))


@pytest.mark.parametrize("rows", [ROWS, ROWS + 1, 2 * ROWS + 7])
def test_rows_beyond_one_piece_are_summed(rows: int) -> None:
    check(made(rows, share=0.9))


def check(inputs: tuple[Tensor, ...]) -> None:
    got, wanted = cross_entropy(*inputs), reference(*inputs)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(3 * got, inputs[:2]),
        torch.autograd.grad(3 * wanted, inputs[:2]),
        atol=2e-4,
        rtol=1e-4,
    )


def test_positions_without_weight_get_no_gradient() -> None:
    hidden, head, targets, weights = made(40, share=0.5)
    (gradient,) = torch.autograd.grad(cross_entropy(hidden, head, targets, weights), hidden)
    assert torch.equal(gradient.abs().sum(1) > 0, weights > 0)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_theirs() -> None:
    hidden, head, targets, weights = made(20, share=1.0)
    (wanted,) = torch.autograd.grad(reference(hidden, head, targets, weights), hidden)
    frozen = head.detach()
    cross_entropy(hidden, frozen, targets, weights).backward()
    assert frozen.grad is None
    torch.testing.assert_close(hidden.grad, wanted, atol=1e-5, rtol=1e-4)


def test_bf16_stays_within_its_rounding() -> None:
    inputs = made(200, share=1.0, dtype=torch.bfloat16)
    got, wanted = cross_entropy(*inputs), reference(*inputs)
    torch.testing.assert_close(got, wanted, atol=0, rtol=0.01)
    ours, theirs = (torch.autograd.grad(x, inputs[:2]) for x in (got, wanted))
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).float().norm() < 0.02 * other.float().norm()
