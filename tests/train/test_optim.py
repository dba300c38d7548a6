"""The optimizer keeps what bf16 would lose, and continues after a reload as if nothing had been."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from dialoop.config import OptimSettings
from dialoop.train.muon import Muon
from dialoop.train.optim import Optimizer, warm_decay


def settings_of(**changes: object) -> OptimSettings:
    return OptimSettings.model_validate({"clip": 1e9, "weight_decay": 0.0, **changes})


def weights_of(dtype: torch.dtype, seed: int = 0) -> dict[str, Parameter]:
    """Two matrices and a vector, one name being the tail of another."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (6, 4), "weight": (5, 4), "b.a.weight": (7,)}
    return {name: Parameter(torch.randn(s, generator=draw).to(dtype)) for name, s in shapes.items()}


def descend(optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        goal = torch.Generator().manual_seed(step)
        for weight in optimizer.weights.values():
            wanted = torch.randn(weight.shape, generator=goal).to(weight.dtype)
            (weight - wanted).float().square().sum().backward()
        optimizer.step(0.01, 0.5)


def snapshot(optimizer: Optimizer) -> dict[str, Tensor]:
    """The state as it would lie on disk."""
    return {name: tensor.detach().clone() for name, tensor in optimizer.state().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_updates_too_small_for_bf16_add_up() -> None:
    weight = Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = Optimizer({"w": weight}, settings_of(betas=(0.0, 0.0)))
    for _ in range(100):
        weight.float().sum().backward()
        optimizer.step(1e-3, 1.0)
    assert torch.allclose(weight.float(), torch.full((4, 4), 0.9), atol=0.01)
    assert torch.equal(weight, optimizer.masters["w"].bfloat16())


def test_without_masters_the_same_updates_would_be_lost() -> None:
    weight = torch.ones(4, dtype=torch.bfloat16)
    for _ in range(100):
        weight -= 1e-3
    assert torch.equal(weight, torch.ones(4, dtype=torch.bfloat16))


def test_an_fp32_update_is_that_of_torchs_adamw() -> None:
    ours, theirs = (weights_of(torch.float32) for _ in range(2))
    optimizer = Optimizer(ours, settings_of(weight_decay=0.1))
    groups = [
        {"params": [theirs["a.weight"], theirs["weight"]], "weight_decay": 0.1},
        {"params": [theirs["b.a.weight"]], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99))
    for _ in range(5):
        for weights in (ours, theirs):
            torch.stack([w.square().sum() for w in weights.values()]).sum().backward()
        optimizer.step(0.01, 1.0)
        reference.step()
        reference.zero_grad()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])


def test_gradients_are_scaled_then_clipped_and_their_norm_is_told() -> None:
    weight = Parameter(torch.zeros(2, 2))
    optimizer = Optimizer({"w": weight}, settings_of(clip=1.0))
    weight.grad = torch.full((2, 2), 6.0)
    assert optimizer.step(1e-3, 0.5) == pytest.approx(6.0)
    assert weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("muon", [frozenset[str](), frozenset({"a.weight", "weight"})])
def test_a_reloaded_state_continues_identically(dtype: torch.dtype, muon: frozenset[str]) -> None:
    whole = Optimizer(weights_of(dtype) | {"c.d": Parameter(torch.ones(3, 3))}, settings_of(), muon=muon)
    descend(whole, range(4))
    kept = snapshot(whole)
    fresh = Optimizer(weights_of(dtype, 9) | {"c.d": Parameter(torch.zeros(3, 3))}, settings_of(), muon=muon)
    fresh.load(kept)
    assert same(snapshot(fresh), kept)
    for optimizer in (whole, fresh):
        descend(optimizer, range(4, 8))
    assert same(snapshot(whole), snapshot(fresh))
    assert all(torch.equal(whole.weights[name], fresh.weights[name]) for name in whole.weights)


def test_training_on_leaves_a_loaded_state_as_it_was() -> None:
    optimizer = Optimizer(weights_of(torch.float32), settings_of())
    descend(optimizer, range(3))
    kept = snapshot(optimizer)
    before = {name: tensor.clone() for name, tensor in kept.items()}
    optimizer.load(kept)
    descend(optimizer, range(3))
    assert same(kept, before)


def test_an_update_that_is_not_finite_changes_nothing() -> None:
    optimizer = Optimizer(weights_of(torch.bfloat16), settings_of())
    descend(optimizer, range(2))
    kept = snapshot(optimizer)
    (optimizer.weights["weight"].sum() * float("nan")).backward()
    assert math.isnan(optimizer.step(0.1, 1.0))
    assert same(snapshot(optimizer), kept)


@given(
    st.integers(1, 300), st.sampled_from(["cosine", "linear", "constant"]), st.floats(0, 0.9), st.floats(0, 1)
)
def test_the_rate_rises_to_its_peak_and_then_only_falls(
    steps: int, schedule: str, warmup: float, final: float
) -> None:
    chosen = settings_of(schedule=schedule, warmup=warmup, final=final, learning_rate=0.5)
    rates = [warm_decay(step, steps, chosen) for step in range(steps)]
    top = min(math.ceil(warmup * steps), steps - 1)
    assert rates[top] == pytest.approx(0.5)
    assert all(a <= b + 1e-12 for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[top:]))
    lowest = 0.5 if schedule == "constant" else 0.5 * final
    assert all(rate >= lowest - 1e-12 for rate in rates[top:])
    assert rates[0] > 0


def test_muons_update_is_that_of_torchs() -> None:
    """torch computes in bf16: its update is met within that rounding, fp32 or not here."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(24, 24), (8, 24), (40, 24), (24, 40), (24, 40)]
    ours = [Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
    theirs = [Parameter(weight.detach().clone()) for weight in ours]
    started = [weight.detach().clone() for weight in ours]
    muon = Muon(ours, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for optimizer in (muon, reference):
        optimizer.param_groups[0]["lr"] = 0.02
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=draw)
            other.grad = mine.grad.clone()
        muon.step()
        reference.step()
    for mine, other, start in zip(ours, theirs, started, strict=True):
        assert (mine - other).norm() < 0.02 * (other - start).norm()


def test_muon_leaves_a_matrix_without_a_gradient_alone() -> None:
    still, moved = Parameter(torch.ones(4, 4)), Parameter(torch.ones(4, 4))
    muon = Muon([still, moved], weight_decay=0.1)
    muon.param_groups[0]["lr"] = 0.1
    moved.grad = torch.eye(4)
    muon.step()
    assert torch.equal(still, torch.ones(4, 4))
    assert not torch.equal(moved, torch.ones(4, 4))
