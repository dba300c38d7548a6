"""OpenAI-shaped dictionaries <-> our values: the one place that knows both.

Every DataError names the key at fault, such as `messages[2].role`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dialoop.errors import DataError, echo, nearest
from dialoop.types import ROLES, Conversation, Grammar, Message, Preference, Role, Tool, ToolCall

_MESSAGE_KEYS = frozenset({
    "role", "content", "refusal", "name", "weight", "tool_calls", "tool_call_id", "function_call",
    "reasoning_content", "reasoning",
})  # fmt: skip
_CONVERSATION_KEYS = frozenset({"messages", "tools", "functions", "metadata"})


def conversation_from_openai(obj: Mapping[str, Any]) -> Conversation:
    """A conversation from `{"messages": [...], "tools": [...], "metadata": {...}}`.

    Other top-level keys are kept in the metadata, where `metadata` itself has precedence. Raises DataError.
    """
    rows = _sequence(_require(obj, "messages", "the conversation"), "messages")
    if not rows:
        raise DataError("messages is empty: a conversation has at least one message")
    messages = tuple(message_from_openai(row, where=f"messages[{i}]") for i, row in enumerate(rows))
    rest = {key: value for key, value in obj.items() if key not in _CONVERSATION_KEYS}
    metadata = _mapping(obj.get("metadata") or {}, "metadata")
    return Conversation(messages, _tools_from(obj), {**rest, **metadata})


def conversation_to_openai(conversation: Conversation) -> dict[str, Any]:
    """The inverse: `tools` and `metadata` appear where they are not empty."""
    row: dict[str, Any] = {"messages": [message_to_openai(message) for message in conversation.messages]}
    if conversation.tools:
        row["tools"] = [tool_to_openai(tool) for tool in conversation.tools]
    if conversation.metadata:
        row["metadata"] = dict(conversation.metadata)
    return row


def preference_to_openai(preference: Preference) -> dict[str, Any]:
    """A row of OpenAI's preference format; `metadata` stands beside its three keys, where not empty."""
    asked = conversation_to_openai(preference.history)
    metadata = {"metadata": asked.pop("metadata")} if "metadata" in asked else {}
    return {
        "input": asked,
        "preferred_output": [message_to_openai(preference.chosen)],
        "non_preferred_output": [message_to_openai(preference.rejected)],
        **metadata,
    }


def message_from_openai(obj: Mapping[str, Any], *, where: str = "message") -> Message:
    """One message; `where` is its path for errors. Keys that it cannot hold are listed by `unread_keys`."""
    obj = _mapping(obj, where)
    calls = _calls_from(obj, where)
    return Message(
        role=_role(_require(obj, "role", where), where),
        content=_content(obj, where, may_be_null=bool(calls) or obj.get("role") == "assistant"),
        name=_optional_text(obj, "name", where),
        tool_calls=calls,
        tool_call_id=_optional_text(obj, "tool_call_id", where),
        weight=_weight(obj.get("weight"), where),
        reasoning=_optional_text(obj, "reasoning_content", where) or _optional_text(obj, "reasoning", where),
    )


def message_to_openai(message: Message) -> dict[str, Any]:
    """The inverse; content is null where an assistant turn makes calls and says nothing."""
    if not (message.tool_calls or message.name or message.tool_call_id or message.reasoning) and (
        message.weight is None
    ):
        return {"role": message.role, "content": message.content}
    silent = bool(message.tool_calls) and not message.content
    row: dict[str, Any] = {"role": message.role, "content": None if silent else message.content}
    optional = {
        "name": message.name,
        "tool_calls": [call_to_openai(call) for call in message.tool_calls] or None,
        "tool_call_id": message.tool_call_id,
        "weight": message.weight,
        "reasoning_content": message.reasoning,
    }
    return row | {key: value for key, value in optional.items() if value is not None}


def call_to_openai(call: ToolCall) -> dict[str, Any]:
    """`{"id", "type": "function", "function": {"name", "arguments"}}`, the arguments as JSON text; a custom
    tool's call has `{"type": "custom", "custom": {"name", "input"}}`.
    """
    if call.kind == "custom":
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def tool_to_openai(tool: Tool) -> dict[str, Any]:
    """`{"type": "function", "function": {...}}`, or `{"type": "custom", "custom": {...}}`."""
    if tool.kind == "custom":
        return {"type": "custom", "custom": _custom_to_openai(tool)}
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = dict(tool.parameters)
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def tool_from_openai(obj: Mapping[str, Any], *, where: str = "tool") -> Tool:
    """One tool; a bare function, without the `{"type": "function"}` shell, is taken as well."""
    obj = _mapping(obj, where)
    kind = obj.get("type", "function")
    if kind == "custom":
        return _custom_from(_mapping(obj.get("custom"), f"{where}.custom"), f"{where}.custom")
    if kind != "function" and "function" not in obj:
        raise DataError(f"{where}.type is {echo(kind)}, expected 'function' or 'custom'")
    inside = "function" in obj
    function = _mapping(obj["function"], f"{where}.function") if inside else obj
    path = f"{where}.function" if inside else where
    return Tool(
        name=_text(_require(function, "name", path), f"{path}.name"),
        description=_optional_text(function, "description", path) or "",
        parameters=dict(_mapping(function.get("parameters") or {}, f"{path}.parameters")),
        strict=bool(function.get("strict")),
    )


def _custom_to_openai(tool: Tool) -> dict[str, Any]:
    custom: dict[str, Any] = {"name": tool.name}
    if tool.description:
        custom["description"] = tool.description
    if tool.format is not None:
        grammar = {"syntax": tool.format.kind, "definition": tool.format.text}
        custom["format"] = {"type": "grammar", "grammar": grammar}
    return custom


def _custom_from(custom: Mapping[str, Any], where: str) -> Tool:
    return Tool(
        name=_text(_require(custom, "name", where), f"{where}.name"),
        description=_optional_text(custom, "description", where) or "",
        kind="custom",
        format=_format_from(custom.get("format"), f"{where}.format"),
    )


def _format_from(value: Any, where: str) -> Grammar | None:
    if value is None or _mapping(value, where).get("type") == "text":
        return None
    if value.get("type") != "grammar":
        raise DataError(f"{where}.type is {echo(value.get('type'))}, expected 'text' or 'grammar'")
    grammar = _mapping(value.get("grammar"), f"{where}.grammar")
    syntax = grammar.get("syntax")
    if syntax not in ("lark", "regex"):
        raise DataError(f"{where}.grammar.syntax is {echo(syntax)}, expected 'lark' or 'regex'")
    definition = _text(_require(grammar, "definition", f"{where}.grammar"), f"{where}.grammar.definition")
    return Grammar(syntax, definition, "tools")


def unread_keys(obj: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a message that hold something and that `message_from_openai` does not read."""
    return tuple(sorted(key for key, value in obj.items() if key not in _MESSAGE_KEYS and value))


def _tools_from(obj: Mapping[str, Any]) -> tuple[Tool, ...]:
    key = "tools" if obj.get("tools") else "functions"
    rows = _sequence(obj.get(key) or [], key)
    return tuple(tool_from_openai(row, where=f"{key}[{i}]") for i, row in enumerate(rows))


def _calls_from(obj: Mapping[str, Any], where: str) -> tuple[ToolCall, ...]:
    old = obj.get("function_call")
    if old and not isinstance(old, str):
        return (_call({"function": old}, f"{where}.function_call", ""),)
    rows = _sequence(obj.get("tool_calls") or [], f"{where}.tool_calls")
    return tuple(_call(row, f"{where}.tool_calls[{i}]", f"call_{i}") for i, row in enumerate(rows))


def _call(row: Any, where: str, default_id: str) -> ToolCall:
    row = _mapping(row, where)
    if row.get("type") == "custom":
        return _custom_call(row, _mapping(row.get("custom"), f"{where}.custom"), where, default_id)
    function = _mapping(row.get("function", row), f"{where}.function")
    arguments = function.get("arguments", "{}")
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(
        id=_optional_text(row, "id", where) or default_id,
        name=_text(_require(function, "name", f"{where}.function"), f"{where}.function.name"),
        arguments=_text(arguments, f"{where}.function.arguments"),
    )


def _custom_call(row: Mapping[str, Any], custom: Mapping[str, Any], where: str, default_id: str) -> ToolCall:
    return ToolCall(
        id=_optional_text(row, "id", where) or default_id,
        name=_text(_require(custom, "name", f"{where}.custom"), f"{where}.custom.name"),
        arguments=_text(_require(custom, "input", f"{where}.custom"), f"{where}.custom.input"),
        kind="custom",
    )


def _role(value: Any, where: str) -> Role:
    if value == "function":
        return "tool"
    if value not in ROLES:
        hint = nearest(value, ROLES) if isinstance(value, str) and len(value) < 32 else ""
        hint = hint if "did you mean" in hint else ""
        raise DataError(f"{where}.role is {echo(value)}, expected one of {', '.join(ROLES)}{hint}")
    return cast(Role, value)


def _content(obj: Mapping[str, Any], where: str, *, may_be_null: bool) -> str:
    value = obj.get("content")
    if value is None:
        value = obj.get("refusal")
    if value is None:
        if may_be_null:
            return ""
        raise DataError(f"{where}.content is missing: give its text")
    if isinstance(value, str):
        return _text(value, f"{where}.content")
    parts = _sequence(value, f"{where}.content", wanted="a string or a list of text parts")
    return "\n".join(_part(part, f"{where}.content[{i}]") for i, part in enumerate(parts))


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return _text(part, where)
    kind = _mapping(part, where).get("type", "text")
    if kind in ("text", "refusal"):
        return _text(_require(part, kind, where), f"{where}.{kind}")
    what = "an image" if isinstance(kind, str) and "image" in kind else f"of type {echo(kind)}"
    raise DataError(f"{where} is {what}: messages hold text parts only, remove it or describe it in words")


def _weight(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise DataError(f"{where}.weight is {echo(value)}, expected a number from 0 (not learnt) upwards")
    return float(value)


def _require(obj: Mapping[str, Any], key: str, where: str) -> Any:
    if not isinstance(obj, Mapping) or key not in obj:
        keys = [str(k) for k in obj][:64] if isinstance(obj, Mapping) else []
        close = nearest(key, keys)
        raise DataError(f"{where} has no {key!r}{close if 'did you mean' in close else ''}: add it")
    return obj[key]


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"{where} is {echo(value)}, expected an object")
    return value


def _sequence(value: Any, where: str, wanted: str = "a list") -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise DataError(f"{where} is {echo(value)}, expected {wanted}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where} is {echo(value)}, expected a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where} holds half of a surrogate pair, which no UTF-8 text can: mend it") from None
    return value


def _optional_text(obj: Mapping[str, Any], key: str, where: str) -> str | None:
    value = obj.get(key)
    return None if value is None else _text(value, f"{where}.{key}")
