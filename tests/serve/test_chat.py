"""Chat completions through the official client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from dialoop.backends.echo import EchoEngine
from tests.serve.running import serving

SAID = "Hello there, 你好！ Your order 😀 has shipped."


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(EchoEngine({"long": "word " * 400}, context=1000)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def user(text: str = SAID) -> list[dict[str, object]]:
    return [{"role": "user", "content": text}]


def ask(client: OpenAI, **fields: object) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(**{"model": "echo", "messages": user(), **fields})  # type: ignore[call-overload,no-any-return]


def test_an_answer_has_openais_shape(client: OpenAI) -> None:
    said = ask(client)
    assert said.id.startswith("chatcmpl-")
    assert (said.object, said.model, said.service_tier) == ("chat.completion", "echo", "default")
    assert said.system_fingerprint is None
    choice = said.choices[0]
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", SAID, None)
    assert said.usage
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens
    assert said.usage.prompt_tokens_details
    assert said.usage.completion_tokens_details
    assert said.usage.completion_tokens_details.reasoning_tokens == 0


def test_a_stream_opens_with_the_role_and_ends_with_an_empty_delta(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="echo", messages=user(), stream=True))  # type: ignore[arg-type]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1].choices[0].delta.content is None
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_in_one_more_chunk_when_asked_for(client: OpenAI) -> None:
    *chunks, last = client.chat.completions.create(
        model="echo",
        messages=user(),  # type: ignore[arg-type]
        stream=True,
        n=2,
        stream_options={"include_usage": True},
    )
    assert last.choices == []
    assert last.usage == ask(client, n=2).usage
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_the_bytes_of_a_stream_are_events_and_done(url: str) -> None:
    body = {
        "model": "echo",
        "messages": user("Hi"),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert all('"usage":null' in event for event in events[:-3])


def test_several_answers_interleave_by_index(client: OpenAI) -> None:
    assert [choice.index for choice in ask(client, n=3).choices] == [0, 1, 2]
    texts, ends = {0: "", 1: "", 2: ""}, []
    for chunk in client.chat.completions.create(model="echo", messages=user(), n=3, stream=True):  # type: ignore[arg-type]
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason else []
    assert set(texts.values()) == {SAID}
    assert sorted(ends) == [0, 1, 2]


def test_the_best_of_many_answers_is_given_and_all_are_paid(client: OpenAI) -> None:
    said = ask(client, n=2, extra_body={"best_of": 5})
    assert len(said.choices) == 2
    assert said.usage
    assert said.usage.completion_tokens == ask(client, n=5).usage.completion_tokens  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"n": 3, "extra_body": {"best_of": 2}}, "less than n = 3"),
        ({"stream": True, "extra_body": {"best_of": 2}}, "stream"),
    ],
)
def test_a_best_that_cannot_be_is_a_400(client: OpenAI, fields: dict[str, object], wanted: str) -> None:
    with pytest.raises(openai.BadRequestError, match=wanted) as caught:
        ask(client, **fields)
    assert caught.value.param == "best_of"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_limit_are_honoured(client: OpenAI, field: str) -> None:
    said = ask(client, **{field: 3})
    assert said.choices[0].finish_reason == "length"
    assert said.usage
    assert said.usage.completion_tokens == 3


def test_a_stop_string_is_cut_in_both_modes(client: OpenAI) -> None:
    assert ask(client, stop="shipped").choices[0].message.content == SAID[: SAID.index("shipped")]
    assert ask(client, stop=["shipped", "你好"]).choices[0].message.content == "Hello there, "


def test_all_roles_and_text_parts_are_taken(client: OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    said = ask(
        client,
        messages=[
            {"role": "developer", "content": "Be kind."},
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "nothing"},
        ],
    )
    assert said.choices[0].message.content == "one\ntwo"


def test_an_answer_can_be_sent_back_as_it_came(client: OpenAI) -> None:
    first = ask(client).choices[0].message
    history = [*user(), first.model_dump(), *user("And now?")]
    assert ask(client, messages=history).choices[0].message.content == "And now?"


def test_hints_and_neutral_values_are_taken(client: OpenAI) -> None:
    said = ask(
        client, user="u1", service_tier="flex", frequency_penalty=0, logprobs=False, tools=[], store=False,
        response_format={"type": "text"}, presence_penalty=0.0, seed=None, prompt_cache_key="k", top_p=0,
        extra_body={"top_k": -1, "min_p": 0, "temperature": None},
    )  # fmt: skip
    assert said.choices[0].message.content == SAID


def test_a_message_may_be_said_to_be_text_and_nothing_else(client: OpenAI) -> None:
    """As lm-evaluation-harness said of every message."""
    assert ask(client, messages=[{**user()[0], "type": "text"}]).choices[0].message.content == SAID
    with pytest.raises(openai.BadRequestError, match="unknown field 'type'"):
        ask(client, messages=[{**user()[0], "type": "image"}])


async def test_the_async_client_streams_many_at_once(url: str) -> None:
    async def one(client: AsyncOpenAI, i: int) -> str:
        stream = await client.chat.completions.create(model="echo", messages=user(f"{i} {SAID}"), stream=True)  # type: ignore[arg-type]
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert await asyncio.gather(*(one(client, i) for i in range(20))) == [
            f"{i} {SAID}" for i in range(20)
        ]


def test_the_models_are_listed_and_retrieved(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["echo"]
    assert client.models.retrieve("echo").object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("a/b")
    assert caught.value.code == "model_not_found"


def test_a_prompt_too_long_is_a_real_400_in_a_stream_too(client: OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, messages=user("word " * 1001), stream=stream)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
        assert "1003" in caught.value.message
        assert "1000" in caught.value.message


def test_an_unknown_model_is_a_404_that_names_the_known_ones(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="echo") as caught:
        ask(client, model="gpt-4", stream=True)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
