"""Our own layers for training compute what transformers' layers and autograd compute, or do not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from dialoop.config import (
    BitFitMethod,
    BottleneckMethod,
    FreezeMethod,
    FullMethod,
    IA3Method,
    LoraMethod,
    MethodSettings,
)
from dialoop.models.method import Attached, method_of
from dialoop.models.packed import PackedBody
from dialoop.models.quantised import quantise_frozen
from dialoop.types import ModelRef

FAMILIES: dict[str, Any] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
SHAPE: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
LENGTHS = (4, 9, 9, 150)
IDS = torch.arange(sum(LENGTHS)) * 37 % 101


def attached(
    method: MethodSettings, family: str = "llama", dtype: torch.dtype = torch.float64, **changes: Any
) -> Attached:
    """A model with the method in place, none of its weights zero."""
    config, architecture = FAMILIES[family]
    given = {"sliding_window": None} if family == "mistral" else {}
    torch.manual_seed(0)
    model = architecture(config(**{**SHAPE, **given, **changes})).to(dtype).eval()
    made = method_of(method).attach(model, ModelRef("tiny", Path("tiny")), seed=0)
    for name, weight in made.weights.items():
        if weight.ndim == 1 or "lora_B" in name:
            torch.nn.init.normal_(weight, float(weight.ndim == 1), 0.2)
    return made


def found(body: PackedBody, made: Attached) -> tuple[Tensor, list[Tensor]]:
    hidden = body.hidden(IDS, LENGTHS)
    upstream = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1), dtype=hidden.dtype)
    return hidden, list(torch.autograd.grad(hidden, list(made.weights.values()), upstream))


def check(made: Attached) -> None:
    body = PackedBody(made.model)
    assert body.lean
    ours, gradients = found(body, made)
    body.lean = False
    theirs, wanted = found(body, made)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    for got, want in zip(gradients, wanted, strict=True):
        assert float((got - want).norm()) <= 1e-4 * float(want.norm())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [FullMethod(), LoraMethod(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["by torch", "by kernels"])
def test_values_and_gradients_are_those_of_transformers(
    family: str, method: MethodSettings, dtype: torch.dtype
) -> None:
    check(attached(method, family, dtype))


@pytest.mark.parametrize(
    "method",
    [
        LoraMethod(rank=4, targets=("v_proj", "up_proj"), rslora=True),
        FreezeMethod(layers=1),
        BitFitMethod(norms=True),
    ],
    ids=["some-layers", "freeze", "bitfit"],
)
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_so_it_is_where_only_some_weights_are_trained(family: str, method: MethodSettings) -> None:
    check(attached(method, family))


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_lora_over_a_base_in_few_bits_runs_through_them_too(precision: Any) -> None:
    made = attached(LoraMethod(rank=4), "qwen2")
    quantise_frozen(made.model, precision, made.weights.values())
    check(made)


def test_in_float32_the_products_of_an_int8_base_are_near_those(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs and gradients in 8 bits, where the processor has them."""
    made = attached(LoraMethod(rank=4), "qwen2", torch.float32)
    quantise_frozen(made.model, "int8", made.weights.values())
    body = PackedBody(made.model)
    ours, gradients = found(body, made)
    monkeypatch.setattr("dialoop.models.products.by_bytes", lambda _: None)
    exact, wanted = found(body, made)
    assert float((ours - exact).detach().norm()) <= 0.04 * float(exact.detach().norm())
    got, want = (torch.cat([each.flatten() for each in all_]) for all_ in (gradients, wanted))
    assert float(torch.nn.functional.cosine_similarity(got, want, dim=0)) > 0.99


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (LoraMethod(rank=4, dropout=0.1), {}),
        (LoraMethod(rank=4, dora=True), {}),
        (BottleneckMethod(), {}),
        (IA3Method(), {}),
        (FullMethod(), {"hidden_act": "gelu"}),
    ],
    ids=["dropout", "dora", "bottleneck", "ia3", "gelu"],
)
def test_what_they_do_not_compute_is_left_to_transformers(
    method: MethodSettings, changes: dict[str, Any]
) -> None:
    body = PackedBody(attached(method, **changes).model)
    assert body.packs
    assert not body.lean


def test_an_adapter_that_is_switched_off_is_not_added() -> None:
    made: Any = attached(LoraMethod(rank=4))
    body = PackedBody(made.model)
    with torch.no_grad():
        with_adapter = body.hidden(IDS, LENGTHS)
        with made.wrapped.disable_adapter():
            ours = body.hidden(IDS, LENGTHS)
            body.lean = False
            torch.testing.assert_close(ours, body.hidden(IDS, LENGTHS), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(with_adapter, ours, atol=0.1)


def test_a_full_model_whose_weights_lie_side_by_side_is_written_whole(tmp_path: Path) -> None:
    made: Any = attached(FullMethod())
    PackedBody(made.model)
    made.model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path).state_dict()
    for name, weight in made.model.state_dict().items():
        assert torch.equal(weight, again[name]), name
