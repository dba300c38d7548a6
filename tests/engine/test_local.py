"""The engine in this process."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM

from dialoop.chat.render import render_prompt
from dialoop.engine.loaded import LoadedModel, open_model
from dialoop.engine.local import LocalEngine
from dialoop.errors import OverloadedError
from dialoop.types import Delta, Engine, ModelRef, fold
from tests.conformance.engine import EngineConformance, answer, asking
from tests.tiny import CONTEXT, tiny_model


@functools.cache
def loaded() -> LoadedModel:
    return open_model(ModelRef("tiny", tiny_model()), created=7)


class TestLocalEngineConforms(EngineConformance):
    @pytest_asyncio.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        engine = LocalEngine({"tiny": loaded()}, max_rows=4)
        yield engine
        await engine.aclose()

    @pytest_asyncio.fixture
    async def crowded_engine(self) -> AsyncIterator[Engine]:
        engine = LocalEngine({"tiny": loaded()}, max_rows=1, max_open=1)
        yield engine
        await engine.aclose()


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine({"tiny": loaded()}, max_rows=4, max_open=2, step_tokens=64)
    yield engine
    await engine.aclose()


async def test_a_greedy_answer_equals_that_of_transformers(engine: LocalEngine) -> None:
    request = asking(engine, max_tokens=30)
    prompt = list(render_prompt(request.conversation, loaded().tokenizer))
    reference = AutoModelForCausalLM.from_pretrained(tiny_model()).eval()
    output = reference.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=30, pad_token_id=0)
    said = await answer(engine, request)
    ids = [i for i in output[0, len(prompt) :].tolist() if i not in loaded().tokenizer.stop_ids]
    assert said.text == loaded().tokenizer.decode(ids)
    assert said.usage.prompt_tokens == len(prompt)


async def test_a_request_too_many_is_refused_and_those_open_go_on(engine: LocalEngine) -> None:
    chats = [cast(AsyncGenerator[Delta, None], engine.chat(asking(engine))) for _ in range(2)]
    firsts = [await anext(chat) for chat in chats]
    with pytest.raises(OverloadedError) as caught:
        await anext(engine.chat(asking(engine)))
    assert caught.value.retry_after >= 1
    rests = [[delta async for delta in chat] for chat in chats]
    assert (
        len({first.text + "".join(d.text for d in rest) for first, rest in zip(firsts, rests, strict=True)})
        == 1
    )


async def test_more_answers_than_places_are_all_given(engine: LocalEngine) -> None:
    answers = await fold(engine.chat(asking(engine, n=11, temperature=1.0, seed=3, max_tokens=6)))
    assert len(answers) == 11
    assert len({each.text for each in answers}) > 1


async def test_an_answer_without_a_limit_ends_at_the_context(engine: LocalEngine) -> None:
    said = await answer(engine, asking(engine, max_tokens=None))
    total = said.usage.prompt_tokens + said.usage.completion_tokens
    assert total == CONTEXT if said.finish_reason == "length" else total <= CONTEXT


async def test_no_half_character_shows_in_a_stream_of_chinese_and_emoji() -> None:
    """A model that says what it is told: its output layer is forced along a text."""
    text = "您好！订单😀已发货👩‍👩‍👧。"
    forced = _forced(text)
    engine = LocalEngine({"tiny": forced})
    deltas = [delta async for delta in engine.chat(asking(engine, max_tokens=200))]
    await engine.aclose()
    assert "".join(delta.text for delta in deltas) == text
    assert all("\ufffd" not in delta.text for delta in deltas)
    assert deltas[-1].finish_reason == "stop"


async def test_a_failing_step_ends_its_requests_and_the_engine_lives() -> None:
    broken = _forced("ok")
    model = cast(_Forced, broken.model)
    engine = LocalEngine({"tiny": broken})
    model.fails = True
    results = await asyncio.gather(
        *(answer(engine, asking(engine)) for _ in range(3)), return_exceptions=True
    )
    assert [str(result) for result in results] == ["out of memory"] * 3
    model.fails = False
    assert (await answer(engine, asking(engine))).text == "ok"
    await engine.aclose()


async def test_closing_the_engine_ends_open_requests_with_an_error() -> None:
    engine = LocalEngine({"tiny": loaded()}, max_rows=1)
    chat = cast(AsyncGenerator[Delta, None], engine.chat(asking(engine, max_tokens=200)))
    async with aclosing(chat):
        await anext(chat)
        await engine.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await _drain(chat)


async def test_two_models_answer_side_by_side() -> None:
    other = open_model(ModelRef("other", tiny_model()))
    engine = LocalEngine({"tiny": loaded(), "other": other})
    request = asking(engine)
    first, second = await asyncio.gather(
        *(answer(engine, replace(request, model=name)) for name in ("tiny", "other"))
    )
    await engine.aclose()
    assert first == second


async def _drain(chat: AsyncIterator[Delta]) -> None:
    async for _ in chat:
        pass


class _Forced(torch.nn.Module):
    """The tiny model with its next token chosen by its position after the prompt."""

    def __init__(self, inner: torch.nn.Module, ids: list[int]) -> None:
        super().__init__()
        self.inner, self.ids, self.fails = inner, ids, False

    @property
    def config(self) -> object:
        return self.inner.config

    def forward(self, **inputs: torch.Tensor) -> object:
        if self.fails:
            raise RuntimeError("out of memory")
        output = self.inner(**inputs)
        first = inputs["input_ids"].shape[1] > 1
        self.at = 0 if first else self.at + 1
        output.logits[:, -1, self.ids[min(self.at, len(self.ids) - 1)]] += 1e6
        return output


def _forced(text: str) -> LoadedModel:
    tokenizer = loaded().tokenizer
    ids = [*tokenizer.encode(text), *sorted(tokenizer.stop_ids)[:1]]
    return replace(loaded(), model=_Forced(loaded().model, ids))
