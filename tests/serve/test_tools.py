# ruff: noqa: E501  (bodies are easier to read unbroken)
"""Tools through the official client, with a real, if random, model: its calls are whole all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI

from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.types import ModelRef
from tests.serve.bodies import likely
from tests.serve.running import serving
from tests.tiny import make_tiny_model

REFUND = {
    "type": "object",
    "properties": {
        "order": {"type": "integer", "minimum": 1, "maximum": 999},
        "why": {"enum": ["late", "破损"]},
    },
    "required": ["order", "why"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {"name": "refund", "description": "Pay back", "parameters": REFUND, "strict": True},
    },
    {"type": "function", "function": {"name": "hand_over"}},
    {
        "type": "custom",
        "custom": {
            "name": "note",
            "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[A-Z]{2}"}},
        },
    },
]
NAMED = {"type": "function", "function": {"name": "refund"}}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"), context=1024)
    with serving(LocalEngine({"tiny": open_model(ModelRef("tiny", folder))})) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: OpenAI, **fields: Any) -> Any:
    said = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Refund order 12"}],
        "max_tokens": 160,
        "seed": 3,
    }
    return client.chat.completions.create(**{**said, "tools": TOOLS, **fields})


def test_a_named_call_has_openais_shape(client: OpenAI) -> None:
    choice = ask(client, tool_choice=NAMED).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("stop", None)
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "refund")
    assert call.id.startswith("call_")
    given = json.loads(call.function.arguments)
    assert 1 <= given["order"] <= 999
    assert given["why"] in ("late", "破损")


def test_required_calls_are_whole_and_end_with_tool_calls(client: OpenAI) -> None:
    for choice in ask(client, tool_choice="required", n=4, parallel_tool_calls=False).choices:
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        (call,) = choice.message.tool_calls
        if call.type == "custom":
            assert (call.custom.name, len(call.custom.input)) == ("note", 2)
        else:
            assert isinstance(json.loads(call.function.arguments), dict)


def test_a_stream_of_calls_joins_to_the_whole(client: OpenAI) -> None:
    asked = {"tool_choice": NAMED, "temperature": 0}
    whole = ask(client, **asked).choices[0].message.tool_calls[0].function
    with client.chat.completions.stream(
        model="tiny",
        messages=[{"role": "user", "content": "Refund order 12"}],
        max_tokens=160,
        seed=3,
        tools=TOOLS,
        **asked,  # type: ignore[arg-type]
    ) as stream:
        chunks = [event.chunk for event in stream if event.type == "chunk"]
        final = stream.get_final_completion().choices[0].message.tool_calls[0].function
    assert final.arguments == whole.arguments
    deltas = [each for chunk in chunks for choice in chunk.choices for each in choice.delta.tool_calls or []]
    assert [each.index for each in deltas] == [0] * len(deltas)
    assert [(each.type, each.function.name) for each in deltas if each.id] == [("function", "refund")]
    assert deltas[0].id
    assert len(deltas) > 2


def test_only_allowed_tools_are_called(client: OpenAI) -> None:
    allowed = {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "note"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    for answer in ask(client, tool_choice=choice, n=3).choices:
        assert {call.custom.name for call in answer.message.tool_calls} == {"note"}


def test_where_it_may_choose_a_model_that_knows_nothing_talks(client: OpenAI) -> None:
    answer = ask(client, max_tokens=12).choices[0]
    assert answer.message.content
    assert not answer.message.tool_calls


def test_functions_are_answered_in_their_older_form(client: OpenAI) -> None:
    functions = [{"name": "refund", "parameters": REFUND}]
    asked = {"tools": None, "functions": functions, "function_call": {"name": "refund"}}
    answer = ask(client, **asked).choices[0]
    assert answer.finish_reason == "stop"
    assert json.loads(answer.message.function_call.arguments)["why"]
    chunks = [chunk.choices[0].delta.function_call for chunk in ask(client, **asked, stream=True)]
    told = [each for each in chunks if each]
    assert [each.name for each in told if each.name] == ["refund"]
    assert json.loads("".join(each.arguments or "" for each in told))


def test_a_dialogue_with_calls_is_answered(client: OpenAI) -> None:
    first = ask(client, tool_choice=NAMED).choices[0].message
    history = [
        {"role": "user", "content": "Refund order 12"}, first.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "done"},
    ]  # fmt: skip
    assert ask(client, messages=history, max_tokens=4).choices[0].message.content
    older = [
        history[0], {"role": "assistant", "content": None, "function_call": {"name": "refund", "arguments": "{}"}},
        {"role": "function", "name": "refund", "content": "done"},
    ]  # fmt: skip
    assert ask(client, messages=older, max_tokens=4).choices[0].message.content


def test_a_format_beside_tools_is_kept_to_or_a_tool_is_called(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "end", "schema": schema}}
    for choice in ask(client, response_format=wanted, n=6, parallel_tool_calls=False).choices:
        if not choice.message.tool_calls:
            assert json.loads(choice.message.content).keys() == {"done"}


@pytest.mark.parametrize(
    "keyword", [{"maxLenght": 3}, {"not": {}}, {"uniqueItems": True}, {"x-guidance": {}}]
)
def test_a_schema_that_cannot_be_kept_to_is_a_400(url: str, keyword: dict[str, Any]) -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": keyword}}},
    }
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "x"}],
        "tools": [tool],
        "tool_choice": "required",
    }
    answer = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("tools")


def test_hints_speed_and_marks_change_no_answer(client: OpenAI) -> None:
    asked = {"tools": None, "temperature": 0, "max_tokens": 30}
    plain = ask(client, **asked)
    text = plain.choices[0].message.content
    told = ask(
        client, **asked, prediction={"type": "content", "content": text}, reasoning_effort="low", verbosity="low",
        metadata={"shop": "42"}, extra_body={"return_token_ids": True, "chat_template_kwargs": {"enable_thinking": False}},
    )  # fmt: skip
    assert told.choices[0].message.content == text
    assert told.metadata == {"shop": "42"}
    assert told.usage.completion_tokens_details.accepted_prediction_tokens > 5
    assert len(told.prompt_token_ids) == plain.usage.prompt_tokens
    assert len(told.choices[0].token_ids) == plain.usage.completion_tokens
    padded = list(ask(client, **asked, stream=True, stream_options={"include_obfuscation": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in padded) == text
    assert any(chunk.obfuscation for chunk in padded)


def test_an_answer_goes_on_where_the_last_message_ends(client: OpenAI) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Your order"}]
    asked = {"tools": None, "messages": turns, "temperature": 0, "max_tokens": 6}
    on = ask(client, **asked, extra_body={"continue_final_message": True})
    assert on.usage.prompt_tokens < ask(client, **asked).usage.prompt_tokens
    both = ask(client, **asked, extra_body={"continue_final_message": True, "echo": True})
    assert both.choices[0].message.content == "Your order" + on.choices[0].message.content


@settings(max_examples=25)
@given(
    st.lists(likely, min_size=1, max_size=4),
    st.sampled_from(["none", "auto", "required", None]),
    st.booleans(),
)
def test_no_dialogue_makes_the_server_fail(url: str, rows: Any, choice: str | None, stream: bool) -> None:
    offer = {"tools": TOOLS, "tool_choice": choice} if choice else {}
    body = {"model": "tiny", "messages": rows, "max_tokens": 1, "stream": stream, **offer}
    assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code < 500


@pytest.mark.parametrize("depth", [60, 200, 400])
@pytest.mark.parametrize("field", ["tools", "chat_template_kwargs", "response_format"])
def test_no_nesting_makes_the_server_fail(url: str, field: str, depth: int) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        deep = {"type": "object", "properties": {"a": deep}}
    given: dict[str, Any] = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}],
        "chat_template_kwargs": {"a": deep},
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": deep}},
    }
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        field: given[field],
    }
    answer = httpx.post(
        f"{url}/v1/chat/completions", json=body | ({"tool_choice": "required"} if field == "tools" else {})
    )
    assert answer.status_code in (200, 400)
    assert len(answer.content) < 4000
