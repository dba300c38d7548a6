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
from dialoop.engine.running import Running
from dialoop.types import Conversation, Message, ModelRef, Precision
from tests.engine.test_running import CONFIGS, CONTEXT, check, finish, model_of, prompts, rows_of

BASE = ModelRef("base", Path(str(files("dialoop.assets").joinpath("dialoop-base"))))


def running_of(model: Any, precision: Precision) -> Running:
    return Running(model, max_rows=3, step_tokens=11, context=CONTEXT, cache_tokens=600, precision=precision)


GEMMAS = frozenset({"gemma", "gemma2 with soft caps and windows"})
"""transformers rounds their embeddings' scale with the weights."""


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - GEMMAS))
def test_weights_that_a_bf16_file_holds_lose_nothing_in_16_bits(name: str) -> None:
    reference = model_of(CONFIGS[name])
    packed = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.bfloat16).eval()
    packed.load_state_dict(reference.state_dict())
    reference.load_state_dict(packed.state_dict())
    for row, told in finish(running_of(packed, "half"), rows_of(prompts(5))).items():
        check(reference, row, told)


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
    assert nats_a_token("half") == pytest.approx(exact, abs=1e-4)
    assert abs(nats_a_token("int8") - exact) <= 0.01
