"""The items that a response's input is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Status = Literal["in_progress", "completed", "incomplete"]
ItemId = Annotated[str, Field(min_length=1, max_length=128)]


class Nested(BaseModel):
    """An object inside a body: it refuses what it does not know; null means absent."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if value is not None}


class TextOfItem(Nested):
    """A part of a message: text that was sent or answered."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] = []
    """Of an answer that is sent back; not used."""
    logprobs: list[Any] = []
    """Of an answer that is sent back; not used."""
    prompt_cache_breakpoint: dict[str, Any] | None = None
    """Hint: not used."""


class RefusalOfItem(Nested):
    """A part of a message: that an assistant refused."""

    type: Literal["refusal"]
    refusal: str


class TextOfThought(Nested):
    """A part of what was thought, or of its summary."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


# Names of union members that no field has: errors leave them out of their paths.
_TEXT, _LIST, _OUTPUT = "a text", "a list", "an output"


def _form(value: Any) -> str:
    return _LIST if isinstance(value, list) else _TEXT


Part = Annotated[TextOfItem | RefusalOfItem, Field(discriminator="type")]
Content = Annotated[
    Annotated[str, Tag(_TEXT)] | Annotated[list[Part], Field(min_length=1), Tag(_LIST)],
    Discriminator(_form),
]
"""A text or its parts."""


class _Item(Nested):
    id: ItemId | None = None
    status: Status | None = None


class InputMessage(_Item):
    """What one of the speakers said; the one item that may go without its type."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    phase: Literal["commentary", "final_answer"] | None = None
    """Hint: not used."""


class FunctionCall(_Item):
    """A call that the assistant made."""

    type: Literal["function_call"]
    call_id: ItemId
    name: str
    arguments: str
    """JSON."""


class CustomToolCall(_Item):
    """A custom tool's call that the assistant made."""

    type: Literal["custom_tool_call"]
    call_id: ItemId
    name: str
    input: str


class CallOutput(_Item):
    """What a call came to."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: ItemId
    output: Content
    name: str | None = None
    """Hint: not used; the call has it."""


class Thought(_Item):
    """What the assistant thought; templates that show thoughts are given it."""

    type: Literal["reasoning"]
    summary: list[TextOfThought] = []
    """Read where there is no content."""
    content: list[TextOfThought] = []
    encrypted_content: str | None = None
    """Hint: not used; thoughts are sent and told in `content`."""


_KINDS: Mapping[str, str] = {
    "message": "message", "function_call": "function_call", "custom_tool_call": "custom_tool_call",
    "function_call_output": _OUTPUT, "custom_tool_call_output": _OUTPUT, "reasoning": "reasoning",
}  # fmt: skip


def _kind(item: Any) -> str | None:
    kind = item.get("type") if isinstance(item, Mapping) else None
    return "message" if kind is None else _KINDS.get(str(kind))


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[CustomToolCall, Tag("custom_tool_call")]
    | Annotated[CallOutput, Tag(_OUTPUT)]
    | Annotated[Thought, Tag("reasoning")],
    Discriminator(
        _kind,
        custom_error_type="item_type",
        custom_error_message=f"type is expected to be one of {', '.join(_KINDS)}",
    ),
]
Input = Annotated[
    Annotated[str, Tag(_TEXT)] | Annotated[list[Item], Field(min_length=1), Tag(_LIST)],
    Discriminator(_form),
]
"""A user's text, or items."""
