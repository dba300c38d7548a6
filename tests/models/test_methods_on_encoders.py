"""Tuning methods on BERT-style encoders: those that make sense there, and a clear word for the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dialoop.config import (
    BitFitMethod,
    BottleneckMethod,
    FreezeMethod,
    IA3Method,
    LoraMethod,
    MethodSettings,
    PrefixMethod,
    PromptMethod,
)
from dialoop.errors import ModelError
from dialoop.models.encoder import encode, load_encoder
from dialoop.models.load import add_adapter
from dialoop.models.method import Attached, method_of
from dialoop.types import ModelRef
from tests.encoders import make_encoder

TEXTS = ((2, 40, 51, 62, 3), (2, 90, 3))
METHODS: list[MethodSettings] = [
    FreezeMethod(layers=1),
    LoraMethod(rank=4),
    LoraMethod(rank=4, dora=True),
    IA3Method(),
    BottleneckMethod(size=8, placement="houlsby"),
    BottleneckMethod(size=8, placement="parallel"),
    BitFitMethod(),
]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder") / request.param, request.param)


def encoder(folder: Path) -> nn.Module:
    return load_encoder(folder, dtype=torch.float32, device="cpu")


def attach(settings: MethodSettings, folder: Path) -> Attached:
    return method_of(settings).attach(encoder(folder), ModelRef("tiny", folder), seed=0)


def states(model: nn.Module) -> Tensor:
    """Hidden states with gradients, where `encode` gives none."""
    return torch.cat([model(input_ids=torch.tensor([text])).last_hidden_state[0] for text in TEXTS])


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: s.kind)
def test_an_encoder_is_trained_where_the_method_says_and_begins_at_the_base(
    settings: MethodSettings, base: Path
) -> None:
    attached = attach(settings, base)
    torch.testing.assert_close(
        encode(attached.model, TEXTS), encode(encoder(base), TEXTS), atol=1e-4, rtol=1e-4
    )
    states(attached.model).square().sum().backward()
    moved = {id(p) for p in attached.model.parameters() if p.grad is not None}
    pooler = {id(p) for name, p in attached.model.named_parameters() if name.startswith("pooler.")}
    assert moved - pooler == {id(p) for p in attached.weights.values()} - pooler


@pytest.mark.parametrize("settings", METHODS[1:], ids=lambda s: s.kind)
def test_an_adapter_of_an_encoder_is_saved_and_added_again(
    settings: MethodSettings, base: Path, tmp_path: Path
) -> None:
    attached = attach(settings, base)
    with torch.no_grad():
        for weight in attached.weights.values():
            weight += 0.05 * torch.randn_like(weight)
    wanted = encode(attached.model.eval(), TEXTS)
    ref = attached.save(tmp_path / "saved")
    assert ref.adapter is not None
    again = add_adapter(encoder(base), ref.adapter, merge=True)
    torch.testing.assert_close(encode(again, TEXTS), wanted, atol=1e-4, rtol=1e-4)
    assert (wanted - encode(encoder(base), TEXTS)).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [PromptMethod(), PrefixMethod()], ids=lambda s: s.kind)
def test_soft_prompts_are_refused_with_what_is_possible(settings: MethodSettings, base: Path) -> None:
    with pytest.raises(
        ModelError, match=r"tiny is an encoder, which has no place for a soft prompt here: use lora"
    ):
        attach(settings, base)
