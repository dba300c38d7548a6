"""The whole way with a real, if random, model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_the_prompts_log_probabilities_have_vllms_shape(client: OpenAI) -> None:
    first, *places = ask(client, extra_body={"prompt_logprobs": 2}).prompt_logprobs
    assert first is None
    assert all(len(place) in (2, 3) for place in places)
    for place in places:
        assert all(set(each) == {"logprob", "rank", "decoded_token"} for each in place.values())
        assert [each["rank"] for each in place.values() if each["rank"] <= 2] in ([1, 2], [2, 1])
    told = [next(iter(place.values()))["decoded_token"] for place in places]
    assert "".join(told[:2]) == "user\n"
    assert not hasattr(ask(client), "prompt_logprobs")
    with pytest.raises(BadRequestError, match="stream"):
        ask(client, stream=True, extra_body={"prompt_logprobs": 0})


def test_an_answer_to_the_assistants_own_turn_begins_with_it_where_echo_is_asked_for(client: OpenAI) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well, "}]
    asked = {"messages": turns, "temperature": 0}
    plain = ask(client, **asked).choices[0].message.content
    echoed = ask(client, **asked, n=2, extra_body={"echo": True})
    assert [choice.message.content for choice in echoed.choices] == ["Well, " + plain] * 2
    chunks = ask(client, **asked, stream=True, extra_body={"echo": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Well, " + plain
    asked["messages"] = turns[:1]
    silent = ask(client, **asked, extra_body={"echo": True}).choices[0].message.content
    assert silent == ask(client, **asked).choices[0].message.content


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


ORDER = {
    "type": "object",
    "properties": {
        "status": {"enum": ["sent", "已退款"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "urgent": {"type": "boolean"},
    },
    "required": ["status", "count", "urgent"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_keeps_to_a_json_schema(client: OpenAI, seed: int) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "order", "schema": ORDER, "strict": True}}
    (said,) = ask(client, seed=seed, max_tokens=200, response_format=wanted).choices
    order = json.loads(said.message.content)
    assert said.finish_reason == "stop"
    assert set(order) == {"status", "count", "urgent"}
    assert order["status"] in ("sent", "已退款")
    assert type(order["urgent"]) is bool
    assert 0 <= order["count"] <= 99


def test_a_json_object_begins_as_one_and_holds_while_it_streams(client: OpenAI) -> None:
    chunks = ask(client, seed=1, response_format={"type": "json_object"}, max_tokens=6, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.startswith("{")


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"choice": ["退货", "换货", "a \"b\""]}, '退货|换货|a "b"'),
        ({"regex": "[A-C][0-9]{3}号"}, "[A-C][0-9]{3}号"),
        ({"grammar": 'start: hello " " NAME\nhello: "Hi" | "您好"\nNAME: /[a-z]{2}/'}, "(Hi|您好) [a-z]{2}"),
    ],
)  # fmt: skip
def test_an_answer_is_a_choice_an_expression_or_a_grammar(client: OpenAI, wanted: Any, pattern: str) -> None:
    said = ask(client, temperature=1.5, n=5, max_tokens=40, extra_body={"structured_outputs": wanted})
    assert all(re.fullmatch(pattern, choice.message.content) for choice in said.choices)
    assert all(choice.finish_reason == "stop" for choice in said.choices)


@pytest.mark.parametrize(
    "wanted", [{"regex": "[a-"}, {"grammar": "start: nothing"}, {"json": {"type": "objekt"}}]
)
def test_a_grammar_that_cannot_be_followed_is_a_400(client: OpenAI, wanted: Any) -> None:
    with pytest.raises(BadRequestError, match="cannot be followed"):
        ask(client, extra_body={"structured_outputs": wanted})


def test_requests_with_and_without_a_grammar_share_a_step(client: OpenAI) -> None:
    free = ask(client, temperature=0).choices[0].message.content
    with ThreadPoolExecutor(4) as pool:
        bound = {"extra_body": {"structured_outputs": {"choice": ["退货", "换货"]}}}
        jobs = [pool.submit(ask, client, temperature=0, **(bound if i % 2 else {})) for i in range(8)]
        said = [job.result().choices[0].message.content for job in jobs]
    assert set(said[::2]) == {free}
    assert set(said[1::2]) <= {"退货", "换货"}
