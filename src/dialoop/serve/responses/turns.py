"""Items of responses -> messages of a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dialoop.serve.responses.items import (
    CallOutput,
    Content,
    CustomToolCall,
    FunctionCall,
    InputMessage,
    Item,
    TextOfItem,
    Thought,
)
from dialoop.store.identity import new_id

_WRITTEN = ("reasoning_content", "content", "tool_calls")
"""What an assistant's turn is made of, in the order in which it is written."""
_PREFIX = {
    "message": "msg_", "function_call": "fc_", "custom_tool_call": "ctc_", "function_call_output": "fco_",
    "custom_tool_call_output": "ctco_", "reasoning": "rs_",
}  # fmt: skip


class Turns:
    """Messages in the making, and the place in the request that each comes from.

    What an assistant thought, said and called in a row is one turn.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.places: list[str] = []

    def say(self, place: str, role: str, content: Any, **others: str) -> None:
        """A turn of anyone but the assistant."""
        self.messages.append({"role": role, "content": content, **others})
        self.places.append(place)

    def add(self, place: str, item: Item) -> None:
        """The turn of an item, or its part of one."""
        match item:
            case InputMessage(role="assistant"):
                self._answer(place, "content", _content(item.content))
            case InputMessage():
                self.say(place, item.role, _content(item.content))
            case FunctionCall():
                self._call(place, item.call_id, "function", {"name": item.name, "arguments": item.arguments})
            case CustomToolCall():
                self._call(place, item.call_id, "custom", {"name": item.name, "input": item.input})
            case CallOutput():
                self.say(place, "tool", _content(item.output), tool_call_id=item.call_id)
            case Thought():
                thoughts = item.content or item.summary
                self._answer(place, "reasoning_content", "\n".join(each.text for each in thoughts))

    def _call(self, place: str, call_id: str, kind: str, called: Mapping[str, str]) -> None:
        self._answer(place, "tool_calls", [{"id": call_id, "type": kind, kind: called}])

    def _answer(self, place: str, key: str, value: Any) -> None:
        last = self.messages[-1] if self.messages else {}
        later = () if key == "tool_calls" else _WRITTEN[_WRITTEN.index(key) :]
        if last.get("role") != "assistant" or not last.keys().isdisjoint(later):
            last = {"role": "assistant"}
            self.messages.append(last)
            self.places.append(place)
        last[key] = [*last.get(key, ()), *value] if key == "tool_calls" else value

    @property
    def chat(self) -> list[dict[str, Any]]:
        """The messages; a turn that was cut off while it thought said nothing."""
        return [
            row if row["role"] != "assistant" or "tool_calls" in row else {"content": "", **row}
            for row in self.messages
        ]


def _content(content: Content) -> Any:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": _text(part)} for part in content]


def _text(part: Any) -> str:
    return str(part.text if isinstance(part, TextOfItem) else part.refusal)


def kept_items(given: str | Sequence[Item]) -> list[dict[str, Any]]:
    """An input as it is kept and listed: items with ids, whose contents come in parts."""
    if isinstance(given, str):
        given = [InputMessage(role="user", content=given)]
    return [_kept(item) for item in given]


def _kept(item: Item) -> dict[str, Any]:
    row = item.model_dump(exclude_none=True, exclude_defaults=True)
    told = {"id": new_id(_PREFIX[item.type]), "type": item.type, "status": "completed", **row}
    if isinstance(item, InputMessage):
        kind = "output_text" if item.role == "assistant" else "input_text"
        told["content"] = _in_parts(told["content"], kind)
    return {"summary": [], **told} if isinstance(item, Thought) else told


def _in_parts(content: Any, kind: str) -> list[dict[str, Any]]:
    parts = [{"type": kind, "text": content}] if isinstance(content, str) else content
    extra: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
    return [{**(extra if "text" in part else {}), **part} for part in parts]
