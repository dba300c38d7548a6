"""Dialogues: training examples, request bodies, log rows and evaluation items at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dialoop.types.tools import Tool, ToolCall

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")
Language = Literal["en", "zh", "other"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Text parts of a content list are joined with newlines when read.

    weight: OpenAI's per-message training weight (0 = context only); None = the mask's default.
    """

    role: Role
    content: str = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    weight: float | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue, the tools that were on offer in it, and what is known about it.

    metadata: free keys; dialoop itself reads `id`, `language`, `intent`, `scenario`, `template`,
    `customer` and `source`.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def history(self) -> Conversation:
        """The conversation before its last assistant turn: what a model is asked to answer."""
        last = self.answer_index
        return self if last is None else replace(self, messages=self.messages[:last])

    @property
    def answer(self) -> str:
        """The text of the last assistant turn, or "" where the conversation has none."""
        last = self.answer_index
        return "" if last is None else self.messages[last].content

    @property
    def answer_index(self) -> int | None:
        """The position of the last assistant turn."""
        for i in range(len(self.messages) - 1, -1, -1):
            if self.messages[i].role == "assistant":
                return i
        return None


@dataclass(frozen=True, slots=True)
class Preference:
    """One history and two answers, the first preferred."""

    history: Conversation
    chosen: Message
    rejected: Message

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What is known about it."""
        return self.history.metadata

    @property
    def conversation(self) -> Conversation:
        """The history with the chosen answer: the supervised example inside a preference."""
        return replace(self.history, messages=(*self.history.messages, self.chosen))

    @property
    def other(self) -> Conversation:
        """The history with the rejected answer."""
        return replace(self.history, messages=(*self.history.messages, self.rejected))


@dataclass(frozen=True, slots=True)
class Pair:
    """A history, an answer to it, and whether the answer fits."""

    history: Conversation
    answer: str
    fits: bool = True


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and the class it belongs to."""

    text: str
    label: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tagged:
    """The words of a sentence and a tag for each, in IOB2 where they name spans."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text to pre-train on."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
