"""Log-probabilities of a prompt's tokens are those of transformers' own logits."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM, BloomConfig

from dialoop.chat.render import render_prompt
from dialoop.engine import prompt_logprobs, runner
from dialoop.engine.loaded import LoadedModel, open_model
from dialoop.engine.local import LocalEngine
from dialoop.types import ChatRequest, ModelRef, RankedLogprob, fold
from tests.conformance.engine import answer, asking, deltas_of
from tests.tiny import CONTEXT, tiny_model

Places = tuple[tuple[RankedLogprob, ...], ...]


@functools.cache
def loaded() -> LoadedModel:
    return open_model(ModelRef("tiny", tiny_model()))


@functools.cache
def one_by_one() -> LoadedModel:
    """An architecture that is read sequence by sequence."""
    config = BloomConfig(vocab_size=420, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    config.max_position_embeddings = CONTEXT
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return replace(loaded(), model=model)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine({"tiny": loaded()}, step_tokens=16)
    yield engine
    await engine.aclose()


@torch.no_grad()
def check(places: Places, model: Any, request: ChatRequest, count: int) -> None:
    prompt = render_prompt(request.conversation, loaded().tokenizer)
    logs = model(torch.tensor([prompt]), use_cache=False).logits[0].log_softmax(-1)
    assert len(places) == len(prompt)
    assert places[0] == ()
    for token, place, row in zip(prompt[1:], places[1:], logs, strict=False):
        own, *others = place
        assert own.token_id == token
        assert own.logprob == pytest.approx(float(row[token]), abs=1e-4)
        assert own.rank == 1 + int((row > row[token]).sum())
        best = row.topk(count)
        told = sorted({each.token_id: each for each in place}.values(), key=lambda each: -each.logprob)
        assert [each.logprob for each in told[:count]] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert {each.token_id for each in others} == set(best.indices.tolist()) - {token}
        assert all(own.rank == i for i, own in enumerate(told[:count], 1))
        assert own.data == loaded().tokenizer.token_bytes(token)


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("model", [loaded, one_by_one])
@pytest.mark.parametrize("rows", [5, 64])
async def test_they_are_those_of_the_whole_prompt_read_at_once(
    model: Any, rows: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (prompt_logprobs, runner):
        monkeypatch.setattr(module, "ROWS", rows)
    engine = LocalEngine({"tiny": model()}, step_tokens=16)
    request = asking(engine, prompt_logprobs=count, max_tokens=2)
    check((await answer(engine, request)).prompt_logprobs, model().model, request, count)
    await engine.aclose()


async def test_a_prompt_that_was_read_before_is_told_alike(engine: LocalEngine) -> None:
    request = asking(engine, prompt_logprobs=2, max_tokens=2)
    first, again = [await answer(engine, request) for _ in range(2)]
    assert again.usage.cached_tokens > 0
    check(again.prompt_logprobs, loaded().model, request, 2)
    assert first.prompt_logprobs == again.prompt_logprobs


async def test_they_come_once_and_before_all_else(engine: LocalEngine) -> None:
    deltas = await deltas_of(engine, asking(engine, n=3, prompt_logprobs=0, max_tokens=4))
    assert [bool(delta.prompt_logprobs) for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    best = await fold(engine.chat(asking(engine, n=2, best_of=3, prompt_logprobs=0, max_tokens=4)))
    assert all(each.prompt_logprobs for each in best)


async def test_reading_a_prompt_and_chatting_go_on_side_by_side(engine: LocalEngine) -> None:
    asked = [asking(engine, f"{i} " * 30, prompt_logprobs=1 if i % 2 else None) for i in range(6)]
    together = await asyncio.gather(*(answer(engine, request) for request in asked))
    for request, said in zip(asked, together, strict=True):
        assert said.text == (await answer(engine, request)).text
        assert bool(said.prompt_logprobs) == (request.sampling.prompt_logprobs is not None)
