"""The lean decoder is held against the model that it stands for before it takes its place."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from dialoop.models.adapters import Adapters
from dialoop.models.lean import LeanDecoder
from dialoop.models.paged import agrees


@pytest.fixture(scope="module")
def deep() -> LlamaForCausalLM:
    """So many layers in bf16 that rounding alone moves the logits by several per cent."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=24, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def lean(model: nn.Module) -> LeanDecoder:
    return LeanDecoder(model, None, Adapters(model))


def test_a_deep_16_bit_model_is_not_mistaken_for_another(deep: LlamaForCausalLM) -> None:
    before = {name: tensor.clone() for name, tensor in deep.state_dict().items()}
    assert agrees(lean(deep), deep, in_float32=True)
    after = deep.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {p.dtype for p in deep.parameters()} == {torch.bfloat16}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in deep.modules())


@pytest.mark.parametrize("what", ["self_attn.k_proj", "input_layernorm", "mlp.down_proj"])
def test_one_layer_that_differs_is_noticed(deep: LlamaForCausalLM, what: str) -> None:
    other = copy.deepcopy(deep)
    with torch.no_grad():
        other.get_submodule(f"model.layers.20.{what}").weight.mul_(-1)
    assert not agrees(lean(other), deep, in_float32=True)
