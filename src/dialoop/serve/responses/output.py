"""The items that a response's output is made of, while they are made.

Each tells the events of its beginning, of its pieces and of its end, without their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dialoop.serve.responses.items import Status
from dialoop.store.identity import new_id
from dialoop.types import ToolKind

Event = dict[str, Any]


class OutputItem(Protocol):
    """An item in the making. index: its place in the output."""

    index: int

    def told(self, status: Status) -> dict[str, Any]:
        """The item as it is now."""
        ...

    def opening(self) -> Iterator[Event]: ...

    def closing(self, status: Status) -> Iterator[Event]: ...


@dataclass(slots=True)
class _Written:
    """An item of one part, a text. event: what the events of the text begin with."""

    index: int
    id: str
    event: str
    text: str = ""

    def part(self) -> dict[str, Any]:
        """The one part, as it is now."""
        raise NotImplementedError

    def told(self, status: Status) -> dict[str, Any]:
        """The item as it is now."""
        raise NotImplementedError

    def opening(self) -> Iterator[Event]:
        """The item, and its one part."""
        yield {"type": "response.output_item.added", "output_index": self.index, "item": self._empty()}
        yield {"type": "response.content_part.added", **self._place(), "part": self.part()}

    def _empty(self) -> dict[str, Any]:
        return {**self.told("in_progress"), "content": []}

    def add(self, text: str, **others: Any) -> Event:
        """More of the text."""
        self.text += text
        return {"type": f"{self.event}.delta", **self._place(), "delta": text, **others}

    def closing(self, status: Status) -> Iterator[Event]:
        """The text, its part and the item, whole."""
        part = self.part()
        whole = {name: value for name, value in part.items() if name in ("text", "logprobs")}
        yield {"type": f"{self.event}.done", **self._place(), **whole}
        yield {"type": "response.content_part.done", **self._place(), "part": part}
        yield {"type": "response.output_item.done", "output_index": self.index, "item": self.told(status)}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}


@dataclass(slots=True)
class Message(_Written):
    """What the assistant says."""

    id: str = field(default_factory=lambda: new_id("msg_"))
    event: str = "response.output_text"
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def say(self, text: str, logprobs: Sequence[dict[str, Any]]) -> Event:
        """More of it."""
        self.logprobs += logprobs
        return self.add(text, logprobs=list(logprobs))

    def part(self) -> dict[str, Any]:
        """The text, as it is now."""
        return {
            "type": "output_text", "text": self.text, "annotations": [], "logprobs": list(self.logprobs),
        }  # fmt: skip

    def told(self, status: Status) -> dict[str, Any]:
        """The item as it is now."""
        return {
            "id": self.id, "type": "message", "role": "assistant", "status": status, "content": [self.part()],
        }  # fmt: skip


@dataclass(slots=True)
class Thoughts(_Written):
    """What the assistant thinks before it says or calls something."""

    id: str = field(default_factory=lambda: new_id("rs_"))
    event: str = "response.reasoning_text"

    def part(self) -> dict[str, Any]:
        """The thought, as it is now."""
        return {"type": "reasoning_text", "text": self.text}

    def told(self, status: Status) -> dict[str, Any]:
        """The item as it is now."""
        return {
            "id": self.id, "type": "reasoning", "status": status, "summary": [], "content": [self.part()],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _CallWords:
    """How a kind of call is told. field: its arguments.  event: what the events of these begin with."""

    type: str
    prefix: str
    field: str
    event: str


_CALLS: Mapping[ToolKind, _CallWords] = {
    "function": _CallWords("function_call", "fc_", "arguments", "response.function_call_arguments"),
    "custom": _CallWords("custom_tool_call", "ctc_", "input", "response.custom_tool_call_input"),
}


@dataclass(slots=True)
class Call:
    """A call that the assistant makes. number: of the answer's calls."""

    index: int
    number: int
    call_id: str
    name: str
    kind: ToolKind
    arguments: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        self.id = new_id(_CALLS[self.kind].prefix)

    def told(self, status: Status) -> dict[str, Any]:
        """The item as it is now."""
        words = _CALLS[self.kind]
        return {
            "id": self.id, "type": words.type, "status": status, "call_id": self.call_id, "name": self.name,
            words.field: self.arguments,
        }  # fmt: skip

    def opening(self) -> Iterator[Event]:
        """The item."""
        item = self.told("in_progress")
        yield {"type": "response.output_item.added", "output_index": self.index, "item": item}

    def add(self, arguments: str) -> Event:
        """More of its arguments."""
        self.arguments += arguments
        return {"type": f"{_CALLS[self.kind].event}.delta", **self._place(), "delta": arguments}

    def closing(self, status: Status) -> Iterator[Event]:
        """The arguments and the item, whole."""
        words = _CALLS[self.kind]
        yield {"type": f"{words.event}.done", **self._place(), words.field: self.arguments}
        yield {"type": "response.output_item.done", "output_index": self.index, "item": self.told(status)}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index}
