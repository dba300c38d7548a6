"""Packed rows through transformers' own models: used where they are honoured, left where they are not."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from dialoop.config import RegularisationSettings
from dialoop.models.load import load_model
from dialoop.models.packed import PackedBody, plain_head
from dialoop.train.batch import Batch
from dialoop.train.objective import Objective
from dialoop.types import ModelRef
from tests.tiny import make_tiny_model, tiny_model

LENGTHS = (9, 4, 9, 17)
IDS = torch.arange(sum(LENGTHS)) * 37 % 101
SMALL: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


def load(folder: Path) -> Any:
    return load_model(ModelRef("tiny", folder), dtype=torch.float32, device="cpu")


@functools.cache
def fresh(kind: str) -> Any:
    torch.manual_seed(0)
    neo = {k: v for k, v in SMALL.items() if k not in ("num_key_value_heads", "head_dim")}
    with torch.random.fork_rng(devices=[]):
        match kind:
            case "mistral":
                model: Any = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=5))
            case "gpt2":
                config = GPT2Config(vocab_size=101, n_embd=32, n_layer=2, n_head=2, n_positions=64)
                model = GPT2LMHeadModel(config)
            case "gpt_neox":
                model = GPTNeoXForCausalLM(GPTNeoXConfig(**neo))
            case _:
                capped = {**SMALL, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0}
                model = Gemma2ForCausalLM(Gemma2Config(**capped))
    return model.eval()


@torch.no_grad()
def alone(model: Any) -> torch.Tensor:
    """Last hidden states by the model's own attention, document by document."""
    documents = IDS.split(list(LENGTHS))
    return torch.cat([model.get_decoder()(input_ids=d[None]).last_hidden_state[0] for d in documents])


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_rows_are_packed_for_the_families_that_are_shipped(family: str, tmp_path: Path) -> None:
    model = load(make_tiny_model(tmp_path / "model", family=family))
    wanted, body = alone(model), PackedBody(model)
    assert body.packs
    with torch.no_grad():
        torch.testing.assert_close(body.hidden(IDS, LENGTHS), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mistral", "gpt2", "gpt_neox", "gemma2"])
def test_other_architectures_get_the_hidden_states_of_each_document_alone(kind: str) -> None:
    model = fresh(kind)
    wanted, body = alone(model), PackedBody(model)
    try:
        with torch.no_grad():
            torch.testing.assert_close(body.hidden(IDS, LENGTHS), wanted, atol=1e-4, rtol=1e-4)
    finally:
        body.release()


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_a_sliding_window_is_never_packed(kind: str) -> None:
    body = PackedBody(fresh(kind))
    assert not body.packs


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_dropout_of_attention_is_the_models_own_in_training_and_none_else(kind: str) -> None:
    config = {**SMALL, "attention_dropout": 0.3}
    if kind == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**config))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**{k: v for k, v in config.items() if k != "head_dim"}))
    wanted = alone(model.eval())
    model.train()
    torch.manual_seed(1)
    dropped = model.get_decoder()(input_ids=IDS[None]).last_hidden_state[0]
    body = PackedBody(model)
    assert body.packs
    torch.manual_seed(1)
    torch.testing.assert_close(body.hidden(IDS, (len(IDS),)), dropped, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(body.hidden(IDS, LENGTHS), body.hidden(IDS, LENGTHS), atol=1e-2)
    model.eval()
    torch.testing.assert_close(body.hidden(IDS, LENGTHS), wanted, atol=1e-4, rtol=1e-4)


def test_a_released_model_attends_as_before_and_generates_with_a_cache() -> None:
    model = load(tiny_model())
    before = model.config._attn_implementation
    wanted = model.generate(IDS[None, :9], max_new_tokens=8, do_sample=False)
    PackedBody(model).release()
    assert model.config._attn_implementation == before
    assert torch.equal(model.generate(IDS[None, :9], max_new_tokens=8, do_sample=False), wanted)


def test_a_head_with_a_bias_or_a_soft_cap_is_not_plain() -> None:
    biased = load(tiny_model())
    assert plain_head(biased)
    head = biased.get_output_embeddings()
    biased.set_output_embeddings(torch.nn.Linear(head.in_features, head.out_features, bias=True))
    assert not plain_head(biased)
    assert not plain_head(fresh("gemma2"))


def weighted_batch() -> Batch:
    ids = IDS.numpy()
    ends = np.cumsum(LENGTHS) - 1
    weights = np.where(np.arange(len(ids)) % 3 == 0, 0.0, 1.5).astype(np.float32)
    weights[ends] = 0
    return Batch(ids, np.append(ids[1:], 0), weights, LENGTHS)


def reference_loss(model: Any, batch: Batch) -> torch.Tensor:
    """From the model's own logits on each document alone."""
    logits = torch.cat([model(document[None]).logits[0] for document in IDS.split(list(LENGTHS))])
    losses = cross_entropy(logits, torch.from_numpy(batch.targets), reduction="none")
    return (losses * torch.from_numpy(batch.weights)).sum()


def with_bias() -> Any:
    model = load(tiny_model())
    head = model.get_output_embeddings()
    biased = torch.nn.Linear(head.in_features, head.out_features, bias=True)
    biased.weight = head.weight
    model.set_output_embeddings(biased)
    return model


@pytest.mark.parametrize("kind", ["gemma2", "gpt2", "biased", "plain"])
def test_the_objective_is_the_cross_entropy_of_the_models_own_logits(kind: str) -> None:
    model = {"biased": with_bias, "plain": lambda: load(tiny_model())}.get(kind, lambda: fresh(kind))()
    batch = weighted_batch()
    weights = list(model.parameters())
    wanted = reference_loss(model, batch)
    gradients = torch.autograd.grad(wanted, weights)
    objective = Objective(model, RegularisationSettings())
    try:
        got = objective(batch)
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-4)
        scale = max(float(g.abs().max()) for g in gradients)
        torch.testing.assert_close(torch.autograd.grad(got, weights), gradients, atol=1e-4 * scale, rtol=1e-3)
    finally:
        objective.body.release()
