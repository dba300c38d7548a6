"""What a tuning method trains, and what it leaves alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from dialoop.config import FullMethod, LoraMethod, MethodSettings
from dialoop.models.load import load_model
from dialoop.models.method import Attached, method_of
from dialoop.types import ModelRef
from tests.tiny import tiny_model

METHODS: list[MethodSettings] = [LoraMethod(rank=4, alpha=8.0), FullMethod()]
IDS = torch.tensor([[5, 9, 300, 17, 44, 21]])


def model() -> nn.Module:
    return load_model(ModelRef("tiny", tiny_model()), dtype=torch.float32, device="cpu")


def attach(settings: MethodSettings, seed: int = 0) -> Attached:
    return method_of(settings).attach(model(), ModelRef("tiny", tiny_model()), seed=seed)


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: s.kind)
def test_a_method_trains_what_it_names_and_nothing_else(settings: MethodSettings) -> None:
    attached = attach(settings)
    attached.model(IDS).logits.sum().backward()
    moved = {id(p) for p in attached.model.parameters() if p.grad is not None}
    assert moved == {id(p) for p in attached.weights.values()}


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: s.kind)
def test_a_method_begins_at_the_base(settings: MethodSettings) -> None:
    with torch.no_grad():
        torch.testing.assert_close(attach(settings).model(IDS).logits, model()(IDS).logits)


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: s.kind)
def test_the_reference_that_saving_returns_loads_the_tuned_model(
    settings: MethodSettings, tmp_path: Path
) -> None:
    attached = attach(settings)
    with torch.no_grad():
        for weight in attached.weights.values():
            weight += 0.02
        wanted = attached.model(IDS).logits
        got = load_model(attached.save(tmp_path / "saved"), dtype=torch.float32, device="cpu")(IDS).logits
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_the_seed_decides_the_first_adapter() -> None:
    first, again, other = (attach(LoraMethod(rank=4), seed).weights for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_rank_and_targets_are_those_of_the_settings() -> None:
    weights = attach(LoraMethod(rank=3, targets=("q_proj", "v_proj"))).weights
    assert {name.split(".")[-4] for name in weights} == {"q_proj", "v_proj"}
    assert {min(weight.shape) for weight in weights.values()} == {3}


def test_full_saving_takes_the_tokenizer_along(tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model(), tmp_path / "base")
    saved = method_of(FullMethod()).attach(model(), ModelRef("tiny", copy), seed=0).save(tmp_path / "saved")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (saved.base / name).read_bytes() == (copy / name).read_bytes()
