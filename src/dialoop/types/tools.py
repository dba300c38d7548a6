"""What a model may call, and what its answers may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ToolKind = Literal["function", "custom"]
"""OpenAI's two kinds: called with JSON arguments, or with one plain text."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an assistant turn makes; `arguments` is JSON text, as on OpenAI's wire, or a custom tool's
    plain input.
    """

    id: str
    name: str
    arguments: str
    kind: ToolKind = "function"


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer may be: one of the choices (a JSON list of strings), a text that a regular expression
    or a Lark grammar (in llguidance's dialect) matches whole, or JSON that a schema (as JSON) allows.

    param: the field of the request that asked for it, for errors.
    """

    kind: Literal["choice", "regex", "lark", "json_schema"]
    text: str
    param: str = "response_format"


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that the model may call.

    parameters: a function's, as JSON Schema.  strict: calls keep to it even where the model may choose.
    format: what a custom tool's input must be, None = any text.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    kind: ToolKind = "function"
    format: Grammar | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called: never, as the model likes, or at once and with nothing said before.

    names: the only ones that may be called, () = all on offer.  parallel: more than one call in an answer.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] = ()
    parallel: bool = True
