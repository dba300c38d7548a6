"""Turns as other tools write them, to `Message`: OpenAI's role/content and ShareGPT's from/value alike."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dialoop.chat.wire import message_from_openai, tool_from_openai, unread_keys
from dialoop.errors import DataError, echo, nearest
from dialoop.types import Message, Role, Tool

# fmt: off
ROLE_NAMES: Mapping[Role, frozenset[str]] = {
    "system": frozenset({"system", "系统", "系统提示", "系統", "系統提示"}),
    "developer": frozenset({"developer"}),
    "user": frozenset({
        "user", "human", "customer", "client", "visitor", "buyer", "caller", "question", "prompter",
        "用户", "客户", "顾客", "买家", "访客", "会员", "消费者", "来访者",
        "问", "提问", "提问者", "人类", "我",
        "用戶", "客戶", "顧客", "買家", "訪客", "會員", "問", "提問",
    }),
    "assistant": frozenset({
        "assistant", "gpt", "chatgpt", "bot", "bing", "bard", "model", "ai", "agent", "seller", "operator",
        "support", "answer", "function_call", "tool_call", "tool_calls",
        "助手", "助理", "客服", "客服人员", "坐席", "人工客服", "智能客服", "在线客服", "机器人", "卖家",
        "商家",
        "答", "回答", "回复", "回覆", "機器人", "賣家",
    }),
    "tool": frozenset({
        "tool", "function", "observation", "tool_response", "function_response", "tool_result", "工具",
    }),
}
# fmt: on
_ROLES: dict[str, Role] = {name: role for role, names in ROLE_NAMES.items() for name in names}
_CALL_ROLES = frozenset({"function_call", "tool_call", "tool_calls"})
_PLAIN_ROLES: Mapping[str, Role] = {
    "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system",
}  # fmt: skip
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})
_REASON_PARTS = frozenset({"reasoning", "thinking"})
ROLE_KEYS = ("role", "from", "speaker", "sender")
CONTENT_KEYS = ("content", "value", "text", "utterance")
TURN_EXAMPLE = '{"role": "user", "content": "..."}'
_REASON_KEYS = ("thinking", "reasoning", "reasoning_content")
_WEIGHT_KEYS = ("weight", "loss_weight", "loss", "train")


def role_of(name: object) -> Role:
    """The role behind a speaker's name, English or Chinese. Raises DataError for an unknown one."""
    role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        hint = nearest(name, _ROLES) if isinstance(name, str) and len(name) <= 64 else ""
        hint = hint if hint.startswith("; did") else ": use user or assistant"
        raise DataError(f"role {echo(name)} is unknown{hint}")
    return role


def messages_of(turns: object) -> tuple[Message, ...]:
    """The messages of a list of turns. Raises DataError naming the turn and what is wrong with it."""
    if not isinstance(turns, list) or not turns:
        raise DataError(f"the turns are {echo(turns)}, expected a list with at least one turn")
    plain = [_plain(turn) for turn in turns]
    if all(plain):
        return tuple(message for message in plain if message)
    calls = _CallNames()
    return tuple(
        message_from_openai(openai_turn, where=f"messages[{index}]")
        for index, turn in enumerate(turns)
        for openai_turn in _translated(turn, f"messages[{index}]", calls)
    )


def _plain(turn: object) -> Message | None:
    """The message of a turn with a role and a text alone: nearly all are, and this is the quick way."""
    if not isinstance(turn, dict) or len(turn) != 2:
        return None
    name, content = turn.get("role") or turn.get("from"), turn.get("content", turn.get("value"))
    role = _PLAIN_ROLES.get(name) if isinstance(name, str) else None
    return Message(role, content) if role and isinstance(content, str) else None


def unread_turn_keys(turns: object) -> set[str]:
    """Keys of turns that hold something and that no message can hold."""
    if not isinstance(turns, list):
        return set()
    listed = [turn for turn in turns if isinstance(turn, dict) and any(key in turn for key in ROLE_KEYS)]
    used = {*ROLE_KEYS[1:], *CONTENT_KEYS, *_WEIGHT_KEYS, "thinking"}
    return {key for turn in listed for key in unread_keys(turn) if key not in used}


class _CallNames:
    """Names tool calls that have no id, and gives results without one the oldest open call's."""

    def __init__(self) -> None:
        self._count = 0
        self._open: list[str] = []

    def opened(self, given: object) -> str:
        name = given if isinstance(given, str) and given else f"call_{self._count}"
        self._count += 1
        self._open.append(name)
        return name

    def answered(self, given: object) -> object:
        if given in self._open:
            self._open.remove(str(given))
        if given is not None:
            return given
        return self._open.pop(0) if self._open else None


def _translated(turn: object, where: str, calls: _CallNames) -> Sequence[Mapping[str, Any]]:
    """A turn as OpenAI writes it; two where one object holds both sides."""
    if not isinstance(turn, dict):
        raise DataError(f"{where} is {echo(turn)}, expected an object with role and content")
    name = next((turn[key] for key in ROLE_KEYS if key in turn), None)
    if name is None:
        return _exchange(turn, where)
    try:
        return (_openai_turn(turn, name, calls),)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _exchange(turn: Mapping[str, Any], where: str) -> Sequence[Mapping[str, Any]]:
    """Both sides of such an object as {"human": ..., "assistant": ...}."""
    sides = [(_ROLES[key.lower()], value) for key, value in turn.items() if key.lower() in _ROLES]
    if not any(role == "user" for role, _ in sides):
        raise DataError(f"{where} has no 'role'{close_key(turn, ROLE_KEYS)}: a turn is {TURN_EXAMPLE}")
    return [{"role": role, "content": text_of(value)} for role, value in sides if value is not None]


def _openai_turn(turn: Mapping[str, Any], name: object, calls: _CallNames) -> Mapping[str, Any]:
    role = role_of(name)
    key = next((key for key in CONTENT_KEYS if turn.get(key) is not None), None)
    content = turn[key] if key else None
    made = [*_listed(turn.get("tool_calls")), *_listed(turn.get("function_call"))]
    row: dict[str, Any] = {"role": role, "content": content}
    if name in _CALL_ROLES:
        row["content"], made = None, _listed(content)
    elif isinstance(content, list):
        row["content"], row["reasoning_content"], calls_inside = _parts(content, role)
        made += calls_inside
    elif content is not None:
        row["content"] = text_of(content, role)
    if row["content"] is None and not made and not any(key in turn for key in (*CONTENT_KEYS, "refusal")):
        raise DataError(f"no 'content'{close_key(turn, CONTENT_KEYS)}: a turn is {TURN_EXAMPLE}")
    if made:
        row["tool_calls"] = [_call(call, calls) for call in made]
    row["tool_call_id"] = (
        calls.answered(turn.get("tool_call_id")) if role == "tool" else turn.get("tool_call_id")
    )
    row["weight"] = _weight(turn)
    row |= {key: turn[key] for key in ("name", "refusal") if turn.get(key) is not None}
    thought = next((turn[key] for key in _REASON_KEYS if turn.get(key) is not None), None)
    if thought is not None:
        row["reasoning_content"] = thought
    return row


def close_key(turn: Mapping[str, Any], wanted: Sequence[str]) -> str:
    """`, but 'contnet'; did you mean 'content'?` where a key of `turn` is close to one of `wanted`."""
    for key in turn:
        if key not in wanted and difflib.get_close_matches(str(key), wanted, n=1, cutoff=0.75):
            return f", but {echo(key)}{nearest(str(key), wanted)}"
    return ""


def _weight(turn: Mapping[str, Any]) -> object:
    """OpenAI's `weight`, or the same thing under the names that other tools give it, flags included."""
    value = next((turn[key] for key in _WEIGHT_KEYS if turn.get(key) is not None), None)
    return float(value) if isinstance(value, bool) else value


def text_of(content: object, role: Role = "user") -> str:
    """The text of a content value: a string, a number, or text parts; a tool's result may be any JSON."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, int | float):
        return json.dumps(content)
    if isinstance(content, list):
        return _parts(content, role)[0]
    if role == "tool":
        return json.dumps(content, ensure_ascii=False)
    raise DataError(f"the content is {echo(content)}, expected text")


def _parts(parts: list[Any], role: Role) -> tuple[str, str | None, list[object]]:
    """(text, reasoning, tool calls) of a content list."""
    if role == "tool" and not all(isinstance(part, dict) and "type" in part for part in parts):
        return json.dumps(parts, ensure_ascii=False), None, []
    texts: list[str] = []
    reasons: list[str] = []
    calls: list[object] = []
    for part in parts:
        kind, value = _part(part)
        if kind == "tool_call":
            calls += _listed(value)
        elif kind in _TEXT_PARTS and isinstance(value, str):
            texts.append(value)
        elif kind in _REASON_PARTS and isinstance(value, str):
            reasons.append(value)
        else:
            raise DataError(
                f"a content part of type {echo(kind)}: only text can be read, describe it in words"
            )
    return "\n".join(texts), "\n".join(reasons) if reasons else None, calls


def _part(part: object) -> tuple[str, object]:
    """(kind, value) of one part of a content list."""
    if isinstance(part, str):
        return "text", part
    if not isinstance(part, dict):
        raise DataError(f'a content part is {echo(part)}, expected {{"type": "text", "text": "..."}}')
    kind = str(part.get("type", "text"))
    return kind, part.get("value", part.get(kind, part.get("text")))


def _listed(value: object) -> list[object]:
    """Tool calls from an object, a list of them, or either as JSON text."""
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError("a tool call is text that is not JSON") from error
    return value if isinstance(value, list) else [value] if value else []


def _call(call: object, names: _CallNames) -> Mapping[str, Any]:
    """OpenAI's shell around a bare function with its arguments."""
    call = _listed(call)[0] if isinstance(call, str) else call
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or "name" not in function:
        raise DataError('a tool call has no "name": it is {"name": "...", "arguments": {...}}')
    arguments = function.get("arguments", function.get("parameters", {}))
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": names.opened(call.get("id")), "function": {"name": function["name"], "arguments": text}}


def tools_of(value: object) -> tuple[Tool, ...]:
    """The tools on offer, from OpenAI's list, bare functions, or either as JSON text."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError("'tools' is text that is not JSON") from error
    listed = value if isinstance(value, list) else [value]
    return tuple(tool_from_openai(tool, where=f"tools[{index}]") for index, tool in enumerate(listed))
