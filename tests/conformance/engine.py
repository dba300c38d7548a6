"""What every engine does. Subclass EngineConformance and give it the two fixtures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import pytest

from dialoop.errors import ContextLengthError, UnknownModelError
from dialoop.types import Answer, ChatRequest, Conversation, Delta, Engine, Message, Sampling, fold

QUESTION = "Where is my order? It was to come on Monday. 我的订单在哪里？"


def asking(engine: Engine, text: str = QUESTION, **sampling: object) -> ChatRequest:
    """A request to the engine's first model; greedy and short unless told."""
    drawn = replace(Sampling(temperature=0, max_tokens=16), **sampling)  # type: ignore[arg-type]
    return ChatRequest(engine.models()[0].name, Conversation((Message("user", text),)), drawn)


async def deltas_of(engine: Engine, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in engine.chat(request)]


async def answer(engine: Engine, request: ChatRequest) -> Answer:
    return (await fold(engine.chat(request)))[0]


class EngineConformance:
    """Fixtures to give: `engine`, and `crowded_engine`, which takes one request at a time."""

    async def test_it_is_an_engine(self, engine: Engine) -> None:
        assert isinstance(engine, Engine)

    async def test_its_models_have_a_name_and_a_context(self, engine: Engine) -> None:
        assert engine.models()
        assert all(model.name and model.context > 0 for model in engine.models())

    async def test_every_answer_ends_once_and_the_last_delta_of_all_has_the_usage(
        self, engine: Engine
    ) -> None:
        deltas = await deltas_of(engine, asking(engine, n=3))
        ends = [delta.index for delta in deltas if delta.finish_reason]
        assert sorted(ends) == [0, 1, 2]
        for index in range(3):
            mine = [delta for delta in deltas if delta.index == index]
            assert mine[-1].finish_reason
        assert [delta.usage is not None for delta in deltas] == [False] * (len(deltas) - 1) + [True]

    async def test_the_answer_comes_in_pieces(self, engine: Engine) -> None:
        assert len(await deltas_of(engine, asking(engine))) > 1

    async def test_a_longer_history_uses_more_prompt_tokens(self, engine: Engine) -> None:
        short, long = await answer(engine, asking(engine, "Hi")), await answer(engine, asking(engine))
        assert 0 < short.usage.prompt_tokens < long.usage.prompt_tokens

    @pytest.mark.parametrize("limit", [1, 2, 7])
    async def test_max_tokens_bounds_the_answer(self, engine: Engine, limit: int) -> None:
        cut = await answer(engine, asking(engine, max_tokens=limit))
        assert cut.usage.completion_tokens <= limit
        whole = await answer(engine, asking(engine, max_tokens=16))
        assert whole.text.startswith(cut.text.rstrip("\ufffd"))
        if whole.usage.completion_tokens > limit:
            assert cut.finish_reason == "length"

    async def test_the_usage_counts_all_answers(self, engine: Engine) -> None:
        one, three = [await fold(engine.chat(asking(engine, n=n))) for n in (1, 3)]
        assert three[0].usage.completion_tokens == 3 * one[0].usage.completion_tokens
        assert three[0].usage.prompt_tokens == one[0].usage.prompt_tokens

    async def test_of_the_answers_made_the_best_are_given_and_the_usage_counts_all(
        self, engine: Engine
    ) -> None:
        one, best = [await fold(engine.chat(asking(engine, **more))) for more in ({}, {"n": 2, "best_of": 3})]
        assert [each.text for each in best] == [one[0].text] * 2
        assert best[0].usage.completion_tokens == 3 * one[0].usage.completion_tokens

    async def test_greedy_answers_to_one_prompt_are_alike(self, engine: Engine) -> None:
        answers = await fold(engine.chat(asking(engine, n=4)))
        assert len({each.text for each in answers}) == 1

    async def test_a_stop_string_never_shows(self, engine: Engine) -> None:
        whole = (await answer(engine, asking(engine))).text
        for begin in (0, 3, len(whole) // 2):
            stop = whole[begin : begin + 3]
            deltas = await deltas_of(engine, asking(engine, stop=(stop,)))
            assert "".join(delta.text for delta in deltas) == whole[: whole.index(stop)]
            assert deltas[-1].finish_reason == "stop"

    async def test_the_same_seed_gives_the_same_answers_whatever_else_runs(self, engine: Engine) -> None:
        drawn = asking(engine, temperature=1.0, seed=42, n=2)
        alone = await fold(engine.chat(drawn))
        crowd = [asking(engine, f"{i} {QUESTION}", temperature=1.0, max_tokens=5 + i) for i in range(5)]
        among, *_ = await asyncio.gather(*(fold(engine.chat(request)) for request in (drawn, *crowd)))
        assert list(map(_without_cached, among)) == list(map(_without_cached, alone))

    async def test_many_at_once_are_answered_as_one_by_one(self, engine: Engine) -> None:
        requests = [asking(engine, f"{i} {QUESTION * (i % 3)}", max_tokens=3 + i) for i in range(8)]
        together = await asyncio.gather(*(answer(engine, request) for request in requests))
        alone = [await answer(engine, request) for request in requests]
        assert list(map(_without_cached, together)) == list(map(_without_cached, alone))

    async def test_an_unknown_model_is_refused_before_the_first_delta(self, engine: Engine) -> None:
        with pytest.raises(UnknownModelError, match=engine.models()[0].name) as caught:
            await anext(engine.chat(replace(asking(engine), model="no-such-model")))
        assert caught.value.param == "model"

    async def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(self, engine: Engine) -> None:
        context = engine.models()[0].context
        with pytest.raises(ContextLengthError) as caught:
            await anext(engine.chat(asking(engine, "订 单 " * context)))
        assert caught.value.limit == context < caught.value.prompt_tokens

    async def test_hanging_up_makes_room_at_once(self, crowded_engine: Engine) -> None:
        for _ in range(3):
            chat = cast(AsyncGenerator[Delta, None], crowded_engine.chat(asking(crowded_engine)))
            async with aclosing(chat):
                await anext(chat)
        assert (await answer(crowded_engine, asking(crowded_engine, max_tokens=2))).text

    async def test_cancelling_makes_room_at_once(self, crowded_engine: Engine) -> None:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in crowded_engine.chat(asking(crowded_engine, max_tokens=200)):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await answer(crowded_engine, asking(crowded_engine, max_tokens=2))).text


def _without_cached(answer: Answer) -> Answer:
    """What was found in the cache may differ from time to time, and nothing else."""
    return replace(answer, usage=replace(answer.usage, cached_tokens=0))
