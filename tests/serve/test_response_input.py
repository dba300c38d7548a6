# ruff: noqa: E501  (bodies are easier to read unbroken)
"""What a request for a response may hold, how it becomes a chat, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI

from dialoop.errors import RequestError
from dialoop.serve.responses.asking import asked_of, parse_response
from tests.serve.bodies import json_values
from tests.serve.scripted import Scripted, call, end
from tests.serve.test_responses import ask, asking

FUNCTION: dict[str, Any] = {
    "type": "function",
    "name": "track",
    "parameters": {"type": "object", "properties": {}},
}
GRAMMAR = {"type": "grammar", "syntax": "regex", "definition": "[A-Z]{2}"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "track", "arguments": "{}"}


@pytest.fixture(scope="module")
def engine() -> Scripted:
    return Scripted(context=64)


@pytest.fixture(scope="module")
def client(engine: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with asking(engine, tmp_path_factory.mktemp("home")) as client:
        yield client


def test_what_an_assistant_thought_said_and_called_in_a_row_is_one_turn(
    client: OpenAI, engine: Scripted
) -> None:
    ask(client, [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Where is 12?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Look."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "One moment.", "annotations": []}]},
        CALL,
        {**CALL, "type": "custom_tool_call", "call_id": "call_2", "input": "AB", "arguments": None},
        {"type": "function_call_output", "call_id": "call_1", "output": "shipped"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "noted"}]},
        {"role": "user", "content": "And 13?"},
    ])  # fmt: skip
    assert engine.messages == [
        {"role": "user", "content": "Where is 12?"},
        {
            "role": "assistant", "content": "One moment.", "reasoning_content": "Look.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "track", "arguments": "{}"}},
                {"id": "call_2", "type": "custom", "custom": {"name": "track", "input": "AB"}},
            ],
        },
        {"role": "tool", "content": "shipped", "tool_call_id": "call_1"},
        {"role": "tool", "content": "noted", "tool_call_id": "call_2"},
        {"role": "user", "content": "And 13?"},
    ]  # fmt: skip


def test_two_messages_of_the_assistant_are_two_turns(client: OpenAI, engine: Scripted) -> None:
    ask(
        client,
        [
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
    )
    assert [row["content"] for row in engine.messages] == ["a", "b", "c"]


def test_an_output_is_sent_back_as_it_came() -> None:
    engine = Scripted([*call(0, "track", "{}"), end("tool_calls")])
    with asking(engine) as client:
        first = ask(client, "Where is 12?", tools=[FUNCTION])
        items = [{"role": "user", "content": "Where is 12?"}, *first.output]
        ask(
            client,
            [
                *items,
                {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "shipped"},
            ],
        )
    assert [row["role"] for row in engine.messages] == ["user", "assistant", "tool"]
    assert engine.messages[1]["tool_calls"][0]["function"] == {"name": "track", "arguments": "{}"}


def test_fields_reach_the_engine(client: OpenAI, engine: Scripted) -> None:
    ask(
        client, "Hi", instructions="Be brief.", max_output_tokens=9, temperature=0.3, top_p=0.8, parallel_tool_calls=False,
        reasoning={"effort": "none"}, text={"verbosity": "low"}, tool_choice="auto",
        tools=[{**FUNCTION, "strict": True}, {"type": "custom", "name": "note", "format": GRAMMAR}],
    )  # fmt: skip
    heard = engine.heard[-1]
    assert (heard.sampling.max_tokens, heard.sampling.temperature, heard.sampling.top_p) == (9, 0.3, 0.8)
    assert (heard.choice.mode, heard.choice.parallel) == ("auto", False)
    assert dict(heard.prompting.wishes) == {
        "reasoning_effort": "none",
        "enable_thinking": False,
        "thinking": False,
        "verbosity": "low",
    }
    track, note = heard.conversation.tools
    assert (track.name, track.strict, note.kind) == ("track", True, "custom")
    assert note.format is not None
    assert (note.format.kind, note.format.text) == ("regex", "[A-Z]{2}")
    assert engine.messages[0] == {"role": "system", "content": "Be brief."}


def test_the_oldest_turns_go_where_the_context_is_too_short(client: OpenAI, engine: Scripted) -> None:
    turns = [
        {"role": role, "content": f"{i} " + "word " * 9} for i in range(8) for role in ("user", "assistant")
    ]
    asked: Any = [*turns, {"role": "user", "content": "last"}]
    said = ask(client, asked, instructions="Be brief.", truncation="auto", max_output_tokens=1)
    kept = engine.messages
    assert (said.output_text, kept[0]["content"], kept[-1]["content"]) == ("last", "Be brief.", "last")
    assert kept[1]["role"] == "user"
    assert 3 <= len(kept) < len(asked)
    assert len(list(client.responses.input_items.list(said.id))) == len(asked)
    for fields in ({}, {"truncation": "auto", "instructions": "word " * 70}):
        with pytest.raises(openai.BadRequestError, match="shorten the input") as caught:
            ask(client, asked, **fields)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


HI = {"model": "echo", "input": "Hi"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"input": None}, "input", "missing"),
    ({"input": []}, "input", "at least 1"),
    ({"input": 3}, "input", "3"),
    ({"input": [3]}, "input[0]", "3"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "'tool'"),
    ({"input": [{"role": "user"}]}, "input[0].content", "missing"),
    ({"input": [{"role": "user", "content": "x", "nam": "y"}]}, "input[0].nam", "unknown"),
    ({"input": [{"role": "user", "content": [{"type": "input_txt", "text": "x"}]}]}, "input[0].content[0]", "input_text"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0].type", "text only"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments", "missing"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", "missing"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": 3}]}, "input[0].output", "string"),
    ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0]", "function_call_output"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type", "previous_response_id"),
    ({"input": [{"role": "user", "content": "x", "id": "a"}, {"role": "user", "content": "y", "id": "a"}]}, "input", "same id"),
    ({"model": "other"}, "model", "echo"),
    ({"instruction": "x"}, "instruction", "instructions"),
    ({"backgrund": True}, "backgrund", "background"),
    ({"messages": []}, "messages", "unknown"),
    ({"max_output_tokens": 0}, "max_output_tokens", "greater than or equal to 1"),
    ({"temperature": 2.1}, "temperature", "2.1"),
    ({"top_logprobs": 2}, "top_logprobs", "include"),
    ({"include": ["everything"]}, "include", "everything"),
    ({"include": ["message.output_text.logprobs"]}, "include", "log-probabilities"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "missing"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "missing"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"propertys": {}}}}}, "text.format", "properties"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "xml"),
    ({"text": {"formt": {}}}, "text.formt", "format"),
    ({"text": {"format": {"type": "json_object"}}}, "text.format", "format"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "huge"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "no built-in tools"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["x"]}]}, "tools[0].type", "no built-in tools"),
    ({"tools": [{"type": "functoin", "name": "f"}]}, "tools[0].type", "did you mean 'function'"),
    ({"tools": [{"type": "function", "name": "f f"}]}, "tools[0]", "letters"),
    ({"tools": [{"type": "function", "name": "f", "parameters": {"type": "array"}}]}, "tools[0]", "object"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0]", "unknown"),
    ({"tools": [3]}, "tools[0]", "3"),
    ({"tools": [FUNCTION, FUNCTION]}, "tools", "two tools"),
    ({"tool_choice": "required"}, "tool_choice", "send tools"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "trak"}}, "tool_choice", "did you mean 'track'"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "web_search"}}, "tool_choice.type", "no built-in tools"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice", "at least one"),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options", "set stream"),
    ({"metadata": {"a": 1}}, "metadata", "1"),
    ({"background": True}, "background", "batches"),
    ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", "no prompt"),
    ({"context_management": [{"type": "compaction"}]}, "context_management", "truncation"),
    ({"moderation": {"model": "x"}}, "moderation.model", "omni-moderation"),
    ({"moderation": {"model": "x", "policy": {"input": {"mode": "mask"}}}}, "moderation.policy.input.mode", "score"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "words"), WRONG, ids=lambda each: str(each)[:60])
def test_what_is_wrong_is_named_in_the_words_of_responses(
    client: OpenAI, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = httpx.post(f"{client.base_url}responses", json={**HI, **fields})
    error = answer.json()["error"]
    assert (answer.status_code in (400, 404), error["param"]) == (True, param), error
    assert words in error["message"]


def test_nulls_mean_absent_everywhere(client: OpenAI) -> None:
    nulls: dict[str, Any] = {
        "instructions": None, "background": None, "prompt": None, "tools": None, "store": None, "stream": None,
        "text": {"format": {"type": "text", "name": None}, "verbosity": None}, "reasoning": {"effort": None},
        "input": [{"type": None, "role": "user", "content": "Hi", "id": None, "status": None}],
    }  # fmt: skip
    answer = httpx.post(f"{client.base_url}responses", json={**HI, **nulls})
    assert answer.status_code == 200, answer.text
    assert answer.json()["store"] is True


FIELDS = [
    "input", "instructions", "model", "text", "tools", "tool_choice", "reasoning", "include", "stream_options",
    "temperature", "metadata", "previous_response_id", "type", "role", "content", "call_id", "output", "arguments",
]  # fmt: skip
ITEM = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "function_call", "custom_tool_call", "function_call_output", "reasoning"])},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "developer"]), "call_id": st.text(min_size=1, max_size=9),
        "content": st.text() | st.lists(st.fixed_dictionaries({"type": st.just("input_text"), "text": st.text()}), max_size=2),
        "name": st.text(), "arguments": st.text(), "input": st.text(), "output": st.text(), "summary": st.just([]),
    },
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(st.sampled_from(FIELDS), json_values | st.lists(ITEM, max_size=4), max_size=4),
    st.lists(ITEM | json_values, max_size=4) | st.text(),
)
def test_whatever_is_asked_is_a_chat_or_an_error_about_it(fields: dict[str, Any], asked: Any) -> None:
    problem, found = None, None
    try:
        found = asked_of(parse_response({"model": "echo", "input": asked, **fields}), [])
    except RequestError as error:
        problem = error
    if found is None:
        assert problem
        assert problem.param
    else:
        assert len(found.request.conversation.messages) == len(found.places) > 0


def test_history_of_another_kind_of_answer_is_gone_on_from(tmp_path: Path) -> None:
    engine = Scripted([*call(0, "track", "{}"), end("tool_calls")])
    with asking(engine, tmp_path) as client:
        first = ask(client, "Where is 12?", tools=[FUNCTION])
        ask(
            client, [{"type": "function_call_output", "call_id": first.output[0].call_id, "output": "shipped"}],
            previous_response_id=first.id,
        )  # fmt: skip
    assert [row["role"] for row in engine.messages] == ["user", "assistant", "tool"]
