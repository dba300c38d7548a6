"""OpenAI-shaped dictionaries become our values, and back, and every error names its key."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialoop.chat.wire import (
    conversation_from_openai,
    conversation_to_openai,
    message_from_openai,
    message_to_openai,
    tool_from_openai,
    unread_keys,
)
from dialoop.errors import DataError
from dialoop.types import Conversation, Message, Tool, ToolCall

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
name = st.text("abc_", min_size=1, max_size=6)
calls = st.builds(ToolCall, id=name, name=name, arguments=st.just('{"a": 1}'))
messages = st.one_of(
    st.builds(Message, role=st.sampled_from(["system", "user"]), content=text, name=st.none() | name),
    st.builds(
        Message, role=st.just("assistant"), content=text, tool_calls=st.lists(calls, max_size=2).map(tuple),
        weight=st.none() | st.floats(0, 4), reasoning=st.none() | text.filter(bool),
    ),
    st.builds(Message, role=st.just("tool"), content=text, tool_call_id=name),
)  # fmt: skip
tools = st.builds(
    Tool, name=name, description=text, parameters=st.just({"type": "object"}), strict=st.booleans()
)
conversations = st.builds(
    Conversation,
    messages=st.lists(messages, min_size=1, max_size=4).map(tuple),
    tools=st.lists(tools, max_size=2).map(tuple),
    metadata=st.dictionaries(name, text, max_size=2),
)


@settings(deadline=None)
@given(conversations)
def test_a_conversation_survives_the_wire(conversation: Conversation) -> None:
    wire = json.loads(json.dumps(conversation_to_openai(conversation)))
    assert conversation_from_openai(wire) == conversation


keys = st.sampled_from(
    ["role", "content", "tool_calls", "function", "weight", "type", "text", "name", "tools"]
)
scalars = st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(["user", "text", "x"])
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
)


@settings(deadline=None)
@given(anything)
def test_whatever_comes_is_a_message_or_a_data_error(obj: Any) -> None:
    for read, row in (
        (message_from_openai, obj),
        (conversation_from_openai, {"messages": [obj], "tools": obj}),
    ):
        with contextlib.suppress(DataError):
            read(row)


def test_text_parts_are_joined_with_newlines() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert message_from_openai({"role": "user", "content": parts}).content == "one\ntwo"


def test_null_content_of_a_calling_assistant_is_empty() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = message_from_openai({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message == Message("assistant", "", tool_calls=(ToolCall("c", "f", "{}"),))
    assert message_to_openai(message) == {"role": "assistant", "content": None, "tool_calls": [call]}


def test_arguments_given_as_an_object_become_json_text() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": {"城市": "北京"}}}
    message = message_from_openai({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message.tool_calls[0].arguments == '{"城市": "北京"}'


def test_the_older_function_call_is_a_tool_call() -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    assert message_from_openai(old).tool_calls == (ToolCall("", "f", "{}"),)
    assert message_from_openai({"role": "function", "name": "f", "content": "1"}).role == "tool"


def test_a_refusal_is_what_the_assistant_said() -> None:
    assert message_from_openai({"role": "assistant", "content": None, "refusal": "No."}).content == "No."


def test_other_keys_of_a_row_become_metadata() -> None:
    row = {"messages": [{"role": "user", "content": "a"}], "intent": "refund", "metadata": {"id": 7}}
    assert conversation_from_openai(row).metadata == {"intent": "refund", "id": 7}


def test_keys_that_a_message_cannot_hold_are_listed() -> None:
    assert unread_keys({"role": "user", "content": "a", "time": 3, "audio": None}) == ("time",)


def test_a_bare_function_is_a_tool() -> None:
    assert tool_from_openai({"name": "f"}) == Tool("f")


USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "the conversation has no 'messages'"),
        ({"message": [USER]}, "did you mean 'message'"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "hi"}, "messages is 'hi', expected a list"),
        ({"messages": [USER, 3]}, r"messages\[1\] is 3, expected an object"),
        (
            {"messages": [USER, USER, {"role": "bot", "content": "a"}]},
            r"messages\[2\].role is 'bot', expected one of",
        ),
        ({"messages": [{"role": "asistant", "content": "a"}]}, "did you mean 'assistant'"),
        ({"messages": [{"content": "a"}]}, r"messages\[0\] has no 'role'"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is missing"),
        (
            {"messages": [{"role": "user", "content": 3}]},
            r"messages\[0\].content is 3, expected a string or a list",
        ),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, "half of a surrogate pair"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            r"messages\[0\].content\[0\] is an image",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "of type 'input_audio'"),
        ({"messages": [{**USER, "weight": -1}]}, r"messages\[0\].weight is -1, expected a number"),
        ({"messages": [{**USER, "weight": True}]}, r"messages\[0\].weight is True"),
        ({"messages": [{**USER, "weight": float("nan")}]}, r"messages\[0\].weight is nan"),
        ({"messages": [{**USER, "tool_calls": [{"id": "c"}]}]}, r"tool_calls\[0\].function has no 'name'"),
        (
            {"messages": [{**USER, "tool_calls": [{"function": {"name": "f", "arguments": 3}}]}]},
            "arguments is 3",
        ),
        ({"messages": [USER], "tools": [{"type": "web_search"}]}, r"tools\[0\].type is 'web_search'"),
        (
            {"messages": [USER], "tools": [{"type": "function", "function": {}}]},
            r"tools\[0\].function has no 'name'",
        ),
        ({"messages": [USER], "metadata": "x"}, "metadata is 'x', expected an object"),
    ],
)
def test_an_error_names_the_key_at_fault(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        conversation_from_openai(row)


def test_an_error_never_repeats_content() -> None:
    secret = "my card is 4111 1111 1111 1111, please do not tell anybody about it, thanks"
    with pytest.raises(DataError) as caught:
        conversation_from_openai({"messages": [{"role": secret, "content": "a"}]})
    assert "4111" not in str(caught.value)
