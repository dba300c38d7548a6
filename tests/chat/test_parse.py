# ruff: noqa: E501  (answers are easier to read unbroken)
"""Calls are found in an answer's text, however it comes, and nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dialoop.chat.callstyle import HERMES, LLAMA3, MISTRAL, PLAIN_JSON, CallStyle, style_of
from dialoop.chat.parse import CallParser, Piece, Said
from dialoop.types import CallDelta, Delta, Tool, calls_of

TOOLS = (Tool("track"), Tool("refund"), Tool("note", kind="custom"))
STYLES = (HERMES, MISTRAL, LLAMA3, PLAIN_JSON)
Read = tuple[str, list[tuple[str, str]]]


def read(style: CallStyle, *pieces: str) -> Read:
    """What is said and the calls, of a text in pieces."""
    parser = CallParser(style, TOOLS)
    out: list[Piece] = [each for piece in pieces for each in parser.push(piece)] + parser.flush()
    said = "".join(each.text for each in out if isinstance(each, Said))
    calls = calls_of([Delta(calls=tuple(each for each in out if isinstance(each, CallDelta)))])
    assert len(calls) == parser.calls
    assert len({call.id for call in calls}) == len(calls)
    return said, [(call.name, call.arguments) for call in calls]


def call(name: str = "track", key: str = "arguments", **arguments: Any) -> str:
    return json.dumps({"name": name, key: arguments}, ensure_ascii=False)


TRACK = call(order=42)
CASES: list[tuple[CallStyle, str, Read]] = [
    (HERMES, f"<tool_call>\n{TRACK}\n</tool_call>", ("", [("track", '{"order": 42}')])),
    (HERMES, f"Let me see.\n<tool_call>\n{TRACK}\n</tool_call>", ("Let me see.", [("track", '{"order": 42}')])),
    (
        HERMES,
        f"<tool_call>{TRACK}</tool_call>\n<tool_call>{call('refund')}</tool_call>\n",
        ("", [("track", '{"order": 42}'), ("refund", "{}")]),
    ),
    (HERMES, f"<tool_call>{TRACK}", ("", [("track", '{"order": 42}')])),
    (HERMES, '<tool_call>{"name": "track", "arguments": {"order": 4', ("", [("track", '{"order": 4')])),
    (HERMES, '<tool_call>{"arguments": {"a": "}"}, "name": "track"}', ("", [("track", '{"a": "}"}')])),
    (HERMES, '<tool_call>{"name": "track", "arguments": "{\\"a\\": 1}"}', ("", [("track", '{"a": 1}')])),
    (HERMES, f"<tool_call>{TRACK}</tool_call>\nDone.", ("\nDone.", [("track", '{"order": 42}')])),
    (HERMES, '<tool_call>{"name": "note", "arguments": {"input": "a\\nb"}}</tool_call>', ("", [("note", "a\nb")])),
    (HERMES, f"<tool_call>{call('unknown')}</tool_call>", (f"<tool_call>{call('unknown')}</tool_call>", [])),
    (HERMES, "a <tool_call> b </tool_call> c", ("a <tool_call> b </tool_call> c", [])),
    (HERMES, f"<tool_call><tool_call>{TRACK}</tool_call>", ("", [("track", '{"order": 42}')])),
    (HERMES, f"a <tool_call> b <tool_call>{TRACK}", ("a <tool_call> b", [("track", '{"order": 42}')])),
    (HERMES, "tail <tool_", ("tail <tool_", [])),
    (HERMES, TRACK, (TRACK, [])),
    (MISTRAL, f"[TOOL_CALLS] [{TRACK}, {call('refund')}]", ("", [("track", '{"order": 42}'), ("refund", "{}")])),
    (MISTRAL, f"[TOOL_CALLS] {TRACK}{call('refund')}", ("", [("track", '{"order": 42}'), ("refund", "{}")])),
    (
        MISTRAL,
        '[TOOL_CALLS]track{"order": 1}[TOOL_CALLS]refund[ARGS]{}',
        ("", [("track", '{"order": 1}'), ("refund", "{}")]),
    ),
    (MISTRAL, '[TOOL_CALLS]track[CALL_ID]abc123xyz[ARGS]{"order": 1}', ("", [("track", '{"order": 1}')])),
    (MISTRAL, "[TOOL_CALLS]nothing{}", ("[TOOL_CALLS]nothing{}", [])),
    (LLAMA3, call(key="parameters", order=42), ("", [("track", '{"order": 42}')])),
    (LLAMA3, f"<|python_tag|>{TRACK}; {call('refund')}", ("", [("track", '{"order": 42}'), ("refund", "{}")])),
    (LLAMA3, '{"type": "function", "name": "track", "parameters": {}}', ("", [("track", "{}")])),
    (LLAMA3, '{"type": "function", "function": {"name": "track", "parameters": {}}}', ("", [("track", "{}")])),
    (LLAMA3, '{"city": "Paris"}', ('{"city": "Paris"}', [])),
    (LLAMA3, f"See: {TRACK}", (f"See: {TRACK}", [])),
    (LLAMA3, '<|python_tag|>search.call("x")', ('<|python_tag|>search.call("x")', [])),
    (PLAIN_JSON, f"```json\n[{TRACK}]\n```", ("", [("track", '{"order": 42}')])),
    (PLAIN_JSON, f"  [{TRACK},\n {TRACK}]", ("", [("track", '{"order": 42}')] * 2)),
    (PLAIN_JSON, "```python\nprint()\n```", ("```python\nprint()\n```", [])),
    (PLAIN_JSON, "[1, 2]", ("[1, 2]", [])),
    (PLAIN_JSON, "", ("", [])),
]  # fmt: skip


@pytest.mark.parametrize(("style", "text", "wanted"), CASES)
def test_calls_are_found_whole_and_character_by_character(style: CallStyle, text: str, wanted: Read) -> None:
    assert read(style, text) == wanted
    assert read(style, *text) == wanted


words = st.sampled_from([
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "```json", "```", "{", "}", "[", "]", ",", ";",
    '"', "\\", ":", " ", "\n", "a", "track", "refund", "[ARGS]", "[CALL_ID]", "订单", "<tool", '"name": "track"',
    '"arguments": {', TRACK, call("refund", x="}"), call("unknown"), call("note", input="a\nb"),
])  # fmt: skip
texts = st.lists(words, max_size=14).map("".join)


@given(st.sampled_from(STYLES), texts, st.data())
def test_the_pieces_join_to_the_same_however_the_text_is_cut(
    style: CallStyle, text: str, data: st.DataObject
) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert read(style, text) == read(style, *pieces) == read(style, *text)


@given(st.sampled_from(STYLES), texts)
@example(LLAMA3, " \n ")
def test_what_holds_no_call_is_said_to_the_letter(style: CallStyle, text: str) -> None:
    said, calls = read(style, text)
    if not calls:
        assert said == text


@given(st.sampled_from(STYLES), texts)
def test_nothing_but_call_syntax_and_white_space_is_left_out(style: CallStyle, text: str) -> None:
    said, calls = read(style, text)
    told = said + "".join(name + json.dumps(arguments, ensure_ascii=False) for name, arguments in calls)
    kept = [char for char in text if char not in ' \n"{}[],;\\:`']
    syntax = "<tool_call></tool_call>[TOOL_CALLS]<|python_tag|>```json[ARGS][CALL_ID]namearguments"
    missing = "".join(char for char in kept if char not in told + syntax + "input")
    assert missing == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
arguments = st.dictionaries(st.text(min_size=1), json_values, max_size=3)
written = {
    "hermes": lambda calls: "\n".join(f"<tool_call>\n{json.dumps(each)}\n</tool_call>" for each in calls),
    "mistral": lambda calls: "[TOOL_CALLS] " + json.dumps(calls),
    "llama3": lambda calls: "; ".join(map(json.dumps, calls)),
    "json": json.dumps,
}


@given(
    st.sampled_from(STYLES),
    st.lists(st.tuples(st.sampled_from(["track", "refund"]), arguments), min_size=1, max_size=3),
)
def test_calls_that_are_written_in_a_style_are_read_in_it(
    style: CallStyle, wanted: list[tuple[str, dict[str, Any]]]
) -> None:
    said, calls = read(style, written[style.name]([{"name": n, "arguments": a} for n, a in wanted]))
    assert said == ""
    assert [(name, json.loads(text)) for name, text in calls] == wanted


def test_arguments_come_while_they_are_written() -> None:
    parser = CallParser(HERMES, TOOLS)
    assert parser.push("Wait. <tool") == [Said("Wait.")]
    assert parser.push('_call>{"name": "track", "arguments": ') == []
    begun, opened = parser.push('{"order"')
    assert isinstance(begun, CallDelta)
    assert (begun.index, begun.name, begun.arguments) == (0, "track", "")
    assert opened == CallDelta(0, '{"order"')
    assert parser.push(": 42}}") == [CallDelta(0, ": 42}")]


@pytest.mark.parametrize(
    ("template", "style"),
    [("[TOOL_CALLS]", MISTRAL), ("<tool_call>", HERMES), ("<|python_tag|>", LLAMA3), ("tools", PLAIN_JSON)],
)
def test_the_template_tells_the_style(template: str, style: CallStyle) -> None:
    assert style_of(template) == style


def test_mistrals_ids_are_nine_letters_and_digits() -> None:
    assert len(MISTRAL.new_id()) == 9
    assert MISTRAL.new_id().isalnum()
