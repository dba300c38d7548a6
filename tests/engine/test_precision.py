"""Weights of 16 and 8 bits, as they are served."""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dialoop.chat.render import Rendered, render
from dialoop.engine.loaded import open_models
from dialoop.engine.row import Row
from dialoop.engine.running import Running
from dialoop.models.load import default_dtype
from dialoop.types import Conversation, Message, ModelRef, Precision
from tests.engine.test_running import CONFIGS, CONTEXT, check, finish, model_of, prompts, rows_of

BASE = ModelRef("base", Path(str(files("dialoop.assets").joinpath("dialoop-base"))))


def running_of(model: Any, precision: Precision) -> Running:
    return Running(model, max_rows=3, step_tokens=11, context=CONTEXT, cache_tokens=600, precision=precision)


NATIVE = default_dtype("cpu") == torch.bfloat16
"""Activations between 16-bit layers are bf16, not float32."""
GEMMAS = frozenset({"gemma", "gemma2 with soft caps and windows"})
"""transformers rounds their embeddings' scale with the weights."""


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - GEMMAS))
def test_16_bits_lose_nothing_of_a_bf16_file_but_what_bf16_products_round(name: str) -> None:
    reference = model_of(CONFIGS[name])
    rounded, packed = (
        AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.bfloat16).eval() for _ in range(2)
    )
    for each in (rounded, packed):
        each.load_state_dict(reference.state_dict())
    reference.load_state_dict(rounded.state_dict())
    told = finish(running_of(packed, "half"), rows_of(prompts(5)))
    within = 1.5 * max(rounding(rounded, reference, row) for row in told) if NATIVE else 1e-4
    for row, logprobs in told.items():
        check(reference, row, logprobs, within)


@torch.no_grad()
def rounding(rounded: Any, reference: Any, row: Row) -> float:
    """How far transformers' own bf16 model is from the float32 one, at most, in log-probability."""
    ids = torch.tensor([[*row.prompt, *row.tokens]])
    first, second = (model(ids, use_cache=False).logits.float() for model in (rounded, reference))
    return float((first.log_softmax(-1) - second.log_softmax(-1)).abs().max())


def test_packed_weights_are_not_held_twice() -> None:
    for name in ("llama", "gpt2"):
        model = model_of(CONFIGS[name])
        running_of(model, "half")
        assert not any(type(each) is torch.nn.Linear and each.weight.numel() for each in model.modules())


@functools.cache
def sampled() -> list[Rendered]:
    """Dialogues of the shipped samples, as the shipped base reads them."""
    tokenizer = open_models([BASE])["base"].tokenizer
    rows = []
    for language in ("en", "zh"):
        lines = files("dialoop.assets").joinpath("samples", f"{language}.jsonl").read_text("utf-8")
        for line in lines.splitlines()[:400:20]:
            messages = [Message(m["role"], m["content"]) for m in json.loads(line)["messages"]]
            rows.append(render(Conversation(tuple(messages)), tokenizer))
    return rows


def nats_a_token(precision: Precision) -> float:
    loaded = open_models([BASE], precision=precision)["base"]
    running = Running(
        loaded.model, max_rows=1, step_tokens=2048, context=2048, cache_tokens=2048, precision=precision
    )
    found: list[float] = []
    for row in sampled():
        work = running.score([row], "")
        while True:
            try:
                next(work)
            except StopIteration as ended:
                found += ended.value[0].logprobs
                break
    return -sum(found) / len(found)


def test_the_shipped_base_is_at_most_one_percent_more_perplexed_with_8_bits() -> None:
    exact = nats_a_token("float32")
    assert nats_a_token("half") == pytest.approx(exact, abs=1e-3 if NATIVE else 1e-4)
    assert abs(nats_a_token("int8") - exact) <= 0.01
