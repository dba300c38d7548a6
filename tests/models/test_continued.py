"""Adapters of every kind that are trained on: the next run begins at what the last one left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dialoop.config import AddingMethod, ContinueMethod, FullMethod
from dialoop.errors import ModelError
from dialoop.models.load import load_model
from dialoop.models.method import Attached, method_of
from dialoop.models.weights import read_json
from dialoop.types import ModelRef
from tests.conformance.method import MethodConformance, loaded, logits
from tests.decoders import decoder
from tests.models.test_methods import METHODS

ADDING = [name for name, settings in METHODS.items() if isinstance(settings, AddingMethod)]
SOFT = ("prompt", "prefix", "p-tuning-v2")


def first(name: str, folder: Path) -> ModelRef:
    """An adapter that has learnt something."""
    return MethodConformance().taught(METHODS[name], decoder("llama")).save(folder / "first")


def gone_on(ref: ModelRef) -> Attached:
    below = loaded(ModelRef("tiny", ref.base))
    return method_of(ContinueMethod()).attach(below, ref, seed=0)


def answers(ref: ModelRef) -> torch.Tensor:
    model = loaded(ref)
    with torch.no_grad():
        return logits(model.get_base_model() if hasattr(model, "get_base_model") else model)  # type: ignore[operator]


@pytest.mark.parametrize("name", ADDING)
def test_it_begins_at_the_adapter_and_trains_what_that_holds(name: str, tmp_path: Path) -> None:
    ref = first(name, tmp_path)
    attached = gone_on(ref)
    attached.model.eval()
    torch.testing.assert_close(logits(attached.model).detach(), answers(ref), atol=1e-3, rtol=1e-3)
    logits(attached.model).square().sum().backward()
    moved = {id(p) for p in attached.model.parameters() if p.grad is not None}
    assert moved == {id(weight) for weight in attached.weights.values()}


@pytest.mark.parametrize("name", ADDING)
def test_what_is_written_takes_the_adapters_place_on_the_same_base(name: str, tmp_path: Path) -> None:
    ref = first(name, tmp_path)
    attached = gone_on(ref)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in attached.weights.values():
            weight += 0.05 * torch.randn_like(weight)
    attached.model.eval()
    wanted = logits(attached.model).detach()
    made = attached.save(tmp_path / "second")
    assert (made.base, made.adapter) == (ref.base, tmp_path / "second")
    torch.testing.assert_close(answers(made), wanted, atol=1e-3, rtol=1e-3)
    assert (wanted - answers(ref)).abs().max() > 0.01
    assert ref.adapter is not None
    assert made.adapter is not None
    before, after = (read_json(folder / "adapter_config.json") for folder in (ref.adapter, made.adapter))
    for key in ("peft_type", "base_model_name_or_path", "r", "lora_alpha", "use_dora", "size", "placement",
                "num_virtual_tokens"):  # fmt: skip
        assert before.get(key) == after.get(key)


def test_a_whole_model_has_no_adapter_to_train_on() -> None:
    ref = ModelRef("tiny", decoder("llama"))
    with pytest.raises(ModelError, match="trains an adapter on: name an adapter in base"):
        method_of(ContinueMethod()).attach(load_model(ref), ref, seed=0)


@pytest.mark.parametrize("name", SOFT)
def test_every_weight_is_not_trained_below_what_no_weight_can_hold(name: str, tmp_path: Path) -> None:
    ref = first(name, tmp_path)
    with pytest.raises(ModelError, match="train it on with method"):
        method_of(FullMethod()).attach(loaded(ref), ref, seed=0)
