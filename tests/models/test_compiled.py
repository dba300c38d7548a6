"""Compiled layers give the logits of those that they stand for."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from dialoop.engine.runner import runner_of
from dialoop.models.adapters import Adapters
from dialoop.models.cache import Cache, Lane, Span
from dialoop.models.lean import LeanDecoder
from dialoop.models.steps import SpanStep

SIZE = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "pad_token_id": 0,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "initializer_range": 0.2,
}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZE, head_dim=16)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZE, head_dim=16)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SIZE, partial_rotary_factor=0.5)),
}


def made(name: str) -> Any:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def answers(lean: LeanDecoder) -> torch.Tensor:
    """Logits of three prompts in one step, of a token of each in another, and of one alone."""
    cache, device = Cache(48), torch.device("cpu")
    blocks, lanes = [range(16 * i, 16 * i + 16) for i in range(3)], [Lane() for _ in range(3)]
    sizes, found = (5, 9, 3), []
    spans = [Span(0, n, own, lane=lane) for n, own, lane in zip(sizes, blocks, lanes, strict=True)]
    found.append(lean.logits(torch.arange(17) * 7, SpanStep(cache, spans, device), torch.arange(17)))
    spans = [Span(n, n + 1, own, lane=lane) for n, own, lane in zip(sizes, blocks, lanes, strict=True)]
    found.append(lean.logits(torch.tensor([4, 8, 15]), SpanStep(cache, spans, device), torch.arange(3)))
    alone = [Span(6, 7, blocks[0], lane=lanes[0])]
    found.append(lean.logits(torch.tensor([16]), SpanStep(cache, alone, device), torch.arange(1)))
    return torch.cat(found)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", MODELS)
def test_compiled_layers_give_the_same_logits(name: str) -> None:
    model = made(name)
    plain, compiled = (LeanDecoder(model, "float32", Adapters(model)) for _ in range(2))
    compiled.compile(model)
    wanted, got = answers(plain), answers(compiled)
    assert not torch.equal(got, wanted), "was not compiled"
    assert torch.allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("there", "why"), [(False, "its weights are int8"), (True, "own kernels are faster")]
)
def test_a_model_that_gains_nothing_is_served_as_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, there: bool, why: str
) -> None:
    monkeypatch.setattr(LeanDecoder, "by_kernels", there)
    with caplog.at_level(logging.WARNING, logger="dialoop.engine"):
        runner_of(made("llama"), 4, precision="int8", compiled=True)
    assert "LlamaForCausalLM is not compiled: " in caplog.text
    assert why in caplog.text
