"""Tools as responses have them, flat -> tools as chats have them, in a shell of their kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dialoop.errors import RequestError, UnsupportedError, echo, nearest

BUILT_IN = frozenset({
    "apply_patch", "code_interpreter", "computer", "computer_use_preview", "file_search", "image_generation",
    "local_shell", "mcp", "namespace", "programmatic_tool_calling", "shell", "tool_search", "web_search",
    "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11",
})  # fmt: skip
_KINDS = ("function", "custom")


def tool_to_chat(tool: Any, place: str) -> Any:
    """One tool. Raises RequestError for another kind of it, UnsupportedError for a built-in one."""
    if not isinstance(tool, Mapping):
        return tool
    kind = _kind(tool, place)
    inner = {name: value for name, value in tool.items() if name != "type" and value is not None}
    if kind == "custom" and isinstance(inner.get("format"), Mapping):
        inner["format"] = _format_to_chat(inner["format"])
    return {"type": kind, kind: inner}


def _kind(tool: Mapping[str, Any], place: str) -> str:
    kind = tool.get("type")
    if kind in BUILT_IN:
        raise UnsupportedError(
            f"{place}.type = {echo(kind)} is not served: there are no built-in tools here: offer a function",
            param=f"{place}.type",
        )
    if kind not in _KINDS:
        close = nearest(kind[:64], _KINDS) if isinstance(kind, str) else ""
        raise RequestError(
            f"{place}.type = {echo(kind)}: expected 'function' or 'custom'{close}", param=f"{place}.type"
        )
    return str(kind)


def _format_to_chat(wanted: Mapping[str, Any]) -> dict[str, Any]:
    if wanted.get("type") != "grammar":
        return dict(wanted)
    return {"type": "grammar", "grammar": {name: wanted[name] for name in wanted if name != "type"}}


def choice_to_chat(choice: Any) -> Any:
    """A tool_choice. Raises as `tool_to_chat`."""
    if not isinstance(choice, Mapping):
        return choice
    if choice.get("type") != "allowed_tools":
        return _named(choice, "tool_choice")
    rows = choice.get("tools")
    tools = [_named(row, "tool_choice.tools") for row in rows] if isinstance(rows, list) else rows
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": tools}}


def _named(tool: Any, place: str) -> Any:
    if not isinstance(tool, Mapping):
        return tool
    kind = _kind(tool, place)
    return {"type": kind, kind: {"name": tool.get("name")}}


def told_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as responses tell it: with all that was left out."""
    plain: dict[str, Any] = {"description": None}
    if tool["type"] == "function":
        plain |= {"parameters": None, "strict": False}
    return {**plain, **{name: value for name, value in tool.items() if value is not None}}
