"""The whole way with a real, if random, model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.types import ModelRef
from tests.serve.running import serving
from tests.tiny import CONTEXT, tiny_model


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    engine = LocalEngine({"tiny": open_model(ModelRef("tiny", tiny_model()))})
    with serving(engine) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_stream_joins_to_the_whole_answer_and_the_seed_repeats_it(client: OpenAI) -> None:
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "退货 please"}],
        "seed": 5,
        "max_tokens": 24,
    }
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    chunks = client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    )
    assert whole.usage.completion_tokens <= 24


def ask(client: OpenAI, **fields: Any) -> Any:
    said = {"model": "tiny", "messages": [{"role": "user", "content": "退货 please"}], "max_tokens": 8}
    return client.chat.completions.create(**said | fields)


def test_log_probabilities_come_whole_and_in_a_stream(client: OpenAI) -> None:
    asked = {"temperature": 0, "logprobs": True, "top_logprobs": 3}
    whole = ask(client, **asked).choices[0]
    told = whole.logprobs.content
    assert told
    assert all(each.top_logprobs[0].logprob == each.logprob <= 0 for each in told)
    assert all(len(each.top_logprobs) == 3 for each in told)
    assert b"".join(bytes(each.bytes) for each in told).decode(errors="replace") == whole.message.content
    chunks = [chunk.choices[0] for chunk in ask(client, **asked, stream=True)]
    assert [each for chunk in chunks if chunk.logprobs for each in chunk.logprobs.content] == told


def test_a_prompt_that_was_read_before_is_told_as_cached(client: OpenAI) -> None:
    turns = [{"role": "user", "content": "Where is order 48213? " * 4}]
    first, again = (ask(client, messages=turns, temperature=0) for _ in range(2))
    assert first.choices[0].message == again.choices[0].message
    told = again.usage.prompt_tokens_details.cached_tokens
    assert 0 < told < again.usage.prompt_tokens == first.usage.prompt_tokens


def test_log_probabilities_are_null_where_they_are_not_asked_for(client: OpenAI) -> None:
    assert ask(client).choices[0].logprobs is None


def test_a_bias_forces_a_token_and_a_stop_token_ends_with_it(client: OpenAI) -> None:
    forced = ask(client, logit_bias={"300": 100}, logprobs=True).choices[0]
    assert {tuple(each.bytes) for each in forced.logprobs.content} == {
        tuple(forced.logprobs.content[0].bytes)
    }
    assert len(forced.logprobs.content) == 8
    ended = ask(client, logit_bias={"300": 100}, extra_body={"stop_token_ids": [300]})
    assert (ended.choices[0].message.content, ended.choices[0].finish_reason) == ("", "stop")
    longer = {"stop_token_ids": [300], "min_tokens": 4}
    assert ask(client, logit_bias={"300": 100}, extra_body=longer).usage.completion_tokens == 5


def test_the_most_probable_token_alone_is_the_greedy_answer(client: OpenAI) -> None:
    greedy = ask(client, temperature=0).choices[0].message.content
    for narrow in ({"top_k": 1}, {"min_p": 1}):
        assert ask(client, temperature=2, seed=3, extra_body=narrow).choices[0].message.content == greedy


@pytest.mark.parametrize("field", ["logit_bias", "stop_token_ids"])
def test_a_token_that_the_model_does_not_have_is_a_400(client: OpenAI, field: str) -> None:
    given: Any = {"99999": 1} if field == "logit_bias" else [99999]
    with pytest.raises(BadRequestError) as caught:
        ask(client, extra_body={field: given})
    assert caught.value.param == field


def test_the_catalogue_tells_the_context(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.max_model_len) == ("tiny", CONTEXT)  # type: ignore[attr-defined]
