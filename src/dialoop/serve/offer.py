"""The tools of a chat request, and which of them are to be called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dialoop.chat.wire import tool_from_openai
from dialoop.errors import DataError, RequestError, echo, nearest
from dialoop.serve.fields import ChatBody
from dialoop.types import Tool, ToolChoice

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KEYS = {
    "function": {"name", "description", "parameters", "strict"},
    "custom": {"name", "description", "format"},
}
_PATH = re.compile(r"(?:tools|functions)(?:\[\d+\]|\.\w+)*")


@dataclass(frozen=True, slots=True)
class Offer:
    """older: asked for as `functions`, and answered so."""

    tools: tuple[Tool, ...]
    choice: ToolChoice
    older: bool = False


def offer_of(chat: ChatBody) -> Offer:
    """Raises RequestError with the field at fault."""
    if chat.functions or chat.function_call is not None:
        if chat.tools or chat.tool_choice is not None:
            raise RequestError("functions came with tools: send tools alone", param="functions")
        tools = tuple(_tool(row, f"functions[{i}]") for i, row in enumerate(chat.functions))
        choice = _older_choice(chat.function_call, tools)
        return Offer(_unique(tools, "functions"), choice, older=True)
    tools = _unique([_tool(row, f"tools[{i}]") for i, row in enumerate(chat.tools)], "tools")
    return Offer(tools, _choice(chat.tool_choice, tools, chat.parallel_tool_calls))


def _tool(row: Any, where: str) -> Tool:
    if isinstance(row, Mapping):
        row = {key: value for key, value in row.items() if value is not None}
        _check_kind(row, where)
    try:
        tool = tool_from_openai(row, where=where)
    except DataError as error:
        found = _PATH.match(str(error))
        raise RequestError(str(error), param=found.group() if found else "tools") from None
    if not _NAME.fullmatch(tool.name):
        raise RequestError(
            f"{where}: the name {echo(tool.name)} is not of 1 to 64 letters, digits, _ and -: change it",
            param=where,
        )
    if tool.parameters.get("type", "object") != "object":
        raise RequestError(
            f"{where}: parameters.type is {echo(tool.parameters['type'])}, expected 'object'", param=where
        )
    return tool


def _check_kind(row: Mapping[str, Any], where: str) -> None:
    kind = row.get("type", "function")
    if kind not in ("function", "custom"):
        raise RequestError(
            f"{where}.type is {echo(kind)}, expected 'function' or 'custom'", param=f"{where}.type"
        )
    inner = row.get(kind)
    if not isinstance(inner, Mapping):
        _check_keys(row, {"type", kind, *_KEYS[kind]}, where)
        return
    _check_keys(row, {"type", kind}, where)
    _check_keys(inner, _KEYS[kind], f"{where}.{kind}")


def _check_keys(given: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in given.keys() - known:
        raise RequestError(f"{where}: unknown field {echo(key)}{nearest(str(key)[:64], known)}", param=where)
    strict = given.get("strict")
    if not isinstance(strict, bool | None):
        raise RequestError(
            f"{where}.strict = {echo(strict)}: expected true or false", param=f"{where}.strict"
        )


def _unique(tools: Sequence[Tool], param: str) -> tuple[Tool, ...]:
    names = [tool.name for tool in tools]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise RequestError(f"{param}: two tools have the name {echo(twice)}: rename one", param=param)
    return tuple(tools)


def _choice(given: Any, tools: Sequence[Tool], parallel: bool) -> ToolChoice:
    if given in (None, "auto", "none"):
        return ToolChoice("none" if given == "none" else "auto", parallel=parallel)
    if not tools:
        raise RequestError("tool_choice came without tools: send tools", param="tool_choice")
    if given == "required":
        return ToolChoice("required", parallel=parallel)
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == "allowed_tools":
        return _allowed(given.get("allowed_tools"), tools, parallel)
    return ToolChoice("required", (_named(given, tools, "tool_choice"),), parallel=False)


def _allowed(given: Any, tools: Sequence[Tool], parallel: bool) -> ToolChoice:
    mode = given.get("mode") if isinstance(given, Mapping) else None
    rows = given.get("tools") if isinstance(given, Mapping) else None
    if mode not in ("auto", "required") or not isinstance(rows, list) or not rows:
        raise RequestError(
            "tool_choice.allowed_tools: expected {mode: auto or required, tools: a list of at least one}",
            param="tool_choice.allowed_tools",
        )
    names = tuple(_named(row, tools, "tool_choice.allowed_tools.tools") for row in rows)
    return ToolChoice(mode, names, parallel)


def _named(given: Any, tools: Sequence[Tool], param: str) -> str:
    """The name in `{"type": "function", "function": {"name"}}` or the same of a custom tool."""
    kind = given.get("type") if isinstance(given, Mapping) else None
    inner = given.get(kind) if kind in ("function", "custom") else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(
            f"{param} = {echo(given)}: expected none, auto, required, allowed_tools or a tool by its name",
            param=param,
        )
    known = [tool.name for tool in tools if tool.kind == kind]
    if name not in known:
        raise RequestError(f"{param}: no {kind} tool {echo(name)}{nearest(name[:64], known)}", param=param)
    return name


def _older_choice(given: Any, tools: Sequence[Tool]) -> ToolChoice:
    if given in (None, "auto", "none"):
        return ToolChoice("none" if given == "none" else "auto", parallel=False)
    name = given.get("name") if isinstance(given, Mapping) else None
    known = [tool.name for tool in tools]
    if not isinstance(name, str) or name not in known:
        close = nearest(name[:64], known) if isinstance(name, str) else ""
        raise RequestError(
            f"function_call = {echo(given)}: expected none, auto or the name of a function{close}",
            param="function_call",
        )
    return ToolChoice("required", (name,), parallel=False)
