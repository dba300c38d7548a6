"""Lark grammars, in llguidance's dialect, of answers that call tools in a model's own style."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dialoop.chat.callstyle import CallStyle
from dialoop.chat.schema import followable
from dialoop.errors import RequestError, UnsupportedError
from dialoop.types import Grammar, Tool, ToolChoice

MOST_CALLS = 16
"""Of one answer that has to call."""
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""White space of JSON that is kept to: one space after each comma and colon, no more."""

Spelt = Callable[[str], str]
"""A marker -> how the grammar names it: special tokens are no text."""


def call_grammar(
    style: CallStyle, tools: Sequence[Tool], choice: ToolChoice, answer: Grammar | None, spelt: Spelt
) -> Grammar | None:
    """What an answer may be: calls at once where they are required, and beside a format, which they are an
    alternative to; text and the calls of strict tools where the model may choose. None = anything.

    Raises RequestError about a schema, UnsupportedError about a custom tool's format.
    """
    offered = [(i, tool) for i, tool in enumerate(tools) if not choice.names or tool.name in choice.names]
    if choice.mode == "required":
        rules = ["start: calls", *_calls(style, choice.parallel, spelt), *_bodies(style, offered)]
    elif answer is not None:
        rules = ["start: calls | answer", *_calls(style, choice.parallel, spelt), *_bodies(style, offered)]
        rules.append(f"answer: {_embedded(answer)}")
    elif style.bare or not any(tool.strict or tool.format for _, tool in offered):
        return None
    else:
        loose = [
            (i, tool if tool.strict or tool.format else replace(tool, parameters=_ANY)) for i, tool in offered
        ]
        rules = [*_text_and_calls(style, choice.parallel, spelt), *_bodies(style, loose)]
    return Grammar("lark", "\n".join(rules), "response_format" if answer else "tools")


def _calls(style: CallStyle, parallel: bool, spelt: Spelt) -> list[str]:
    """`calls`: one or more, nothing before."""
    opener = "" if style.bare else spelt(style.opener or "")
    if style.listed:
        return [f"calls: {opener} {_inside(style, parallel)}"]
    more = _more(json.dumps("\n" if style.closer else "; "), "one", parallel)
    return [f"calls: one {more}", f"one: {opener} {_inside(style, parallel)}"]


def _more(between: str, rule: str, parallel: bool) -> str:
    return f"({between} {rule}){{0,{MOST_CALLS - 1}}}" if parallel else ""


def _inside(style: CallStyle, parallel: bool) -> str:
    """What follows an opener."""
    if style.listed:
        return f'" [" call {_more(json.dumps(", "), "call", parallel)} "]"'
    return f'"\\n" call {json.dumps(chr(10) + style.closer)}' if style.closer else "call"


def _text_and_calls(style: CallStyle, parallel: bool, spelt: Spelt) -> list[str]:
    """Any text, in which an opener begins a call; text may follow, and with `parallel` more of them."""
    opener = spelt(style.opener or "")
    # A special token is no text, so that text ends by itself before one; other openers end it when they come.
    begun = f"begun: TEXT {opener}" if opener.startswith("<[") else f"begun[lazy]: TEXT {opener}"
    start = "start: called* TEXT" if parallel else "start: TEXT | called"
    return [start, f"called: begun {_inside(style, parallel)}", begun, r"TEXT: /(.|\n)*/"]


def _bodies(style: CallStyle, tools: Sequence[tuple[int, Tool]]) -> list[str]:
    """`call`: the JSON object of a call of one of `tools`, numbered as in the request."""
    rules = [f"call: {' | '.join(f'call_{i}' for i, _ in tools)}"]
    for i, tool in tools:
        before = f'{{"name": {_text(tool.name)}, "{style.arguments}": '
        rules.append(f'call_{i}: {_text(before)} arguments_{i} "}}"')
        rules.append(f"arguments_{i}: {_json(_parameters(tool, i))}")
    return rules


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _parameters(tool: Tool, i: int) -> Mapping[str, Any]:
    if tool.kind == "custom":
        return input_schema(tool, f"tools[{i}].custom.format")
    schema = followable(tool.parameters or EMPTY, f"tools[{i}].function.parameters")
    return {"type": "object", **schema}


_ANY: Mapping[str, Any] = {"type": "object"}
EMPTY: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
"""The parameters of a function that names none, as at OpenAI."""


def input_schema(tool: Tool, param: str = "tools") -> Mapping[str, Any]:
    """A custom tool as models see it: a function of one text. Raises UnsupportedError for a Lark grammar."""
    text: dict[str, Any] = {"type": "string"}
    if tool.format is not None:
        if tool.format.kind != "regex":
            raise UnsupportedError(
                f"{param}: a {tool.format.kind} grammar cannot be kept to inside a call: send a regex",
                param="tools",
            )
        text["pattern"] = f"^(?:{tool.format.text})$"
    return {
        "type": "object",
        "properties": {"input": text},
        "required": ["input"],
        "additionalProperties": False,
    }


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': SPACING}, ensure_ascii=False)}"


def _embedded(answer: Grammar) -> str:
    if answer.kind == "json_schema":
        return _json(json.loads(answer.text))
    if answer.kind == "choice":
        return " | ".join(json.dumps(each, ensure_ascii=False) for each in json.loads(answer.text))
    raise RequestError(
        f"{answer.param}: a {answer.kind} came with tools: of formats only JSON and choices go with them; "
        f"leave one out", param=answer.param,
    )  # fmt: skip
