"""A frozen base in few bits: what it takes, how exact it is, and that gradients pass through it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from dialoop.config import LoraMethod
from dialoop.models.method import method_of
from dialoop.models.packed import PackedBody, plain_head
from dialoop.models.quantised import MATRICES, QuantisedLinear, quantise_frozen, weight_bytes
from dialoop.types import ModelRef
from tests.conformance.method import loaded, logits
from tests.tiny import tiny_model

ERROR = {"int8": 0.01, "nf4": 0.12}
"""Of a product with normal weights, relative."""


@pytest.mark.parametrize("precision", ERROR)
@pytest.mark.parametrize("shape", [(48, 80), (7, 13)])
def test_a_matrix_in_few_bits_is_near_the_one_it_came_from(precision: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(shape), torch.randn(5, shape[1])
    matrix = MATRICES[precision](weight)
    wanted = x @ weight.t()
    assert (matrix.forward_product(x) - wanted).norm() < ERROR[precision] * wanted.norm()
    assert torch.equal(
        matrix.rows(torch.tensor([[3, 0]]), torch.float32)[0, 1], matrix.dense(torch.float32)[0]
    )


def test_levels_of_nf4_are_kept_exactly() -> None:
    from dialoop.models.quantised import LEVELS

    weight = torch.tensor(LEVELS).repeat(4)[None] * 3
    torch.testing.assert_close(MATRICES["nf4"](weight).dense(torch.float32), weight)


@pytest.mark.parametrize("precision", ERROR)
@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_gradients_are_those_of_the_weights_as_they_are_held(precision: Any, kind: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(24, 40) if kind is nn.Linear else Conv1D(40, 24))
    quantise_frozen(layer, precision, ())
    held: Any = layer[0]
    assert isinstance(held, QuantisedLinear)
    x = torch.randn(6, 24, requires_grad=True)
    weight = held.weight if kind is nn.Linear else held.weight.t()
    wanted = torch.autograd.grad((x @ weight.t() + held.bias).sin().sum(), x)[0]
    got = torch.autograd.grad(layer(x).sin().sum(), x)[0]
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.6), ("nf4", 0.4)])
def test_a_lora_base_takes_far_less_than_in_bf16(precision: Any, most: float) -> None:
    config = LlamaConfig(
        vocab_size=4096, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=3,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).bfloat16()
    before = weight_bytes(model)
    attached = method_of(LoraMethod(rank=8)).attach(model, ModelRef("small", tiny_model()), seed=0)
    adapter = sum(weight.nbytes for weight in attached.weights.values())
    quantise_frozen(attached.model, precision, attached.weights.values())
    assert weight_bytes(attached.model) - adapter < most * before


def test_tied_matrices_are_held_once_and_the_loss_takes_the_short_way() -> None:
    model: Any = loaded(ModelRef("tiny", tiny_model()))
    quantise_frozen(model.requires_grad_(False), "int8", ())
    assert model.lm_head.matrix is model.model.embed_tokens.matrix
    assert plain_head(model)
    assert PackedBody(model).head.shape == (400, 64)


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.05), ("nf4", 0.5)])
def test_a_model_in_few_bits_answers_much_as_before(precision: Any, most: float) -> None:
    model = loaded(ModelRef("tiny", tiny_model())).requires_grad_(False)
    with torch.no_grad():
        before = logits(model)
        quantise_frozen(model, precision, ())
        assert (logits(model) - before).norm() < most * before.norm()
