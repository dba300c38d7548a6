"""Hugging Face chat templates: Jinja in a sandbox, set up as transformers sets it up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from dialoop.chat.callgrammar import input_schema
from dialoop.chat.marks import CLOSE, OPEN, guard, protect, read_marks
from dialoop.chat.wire import call_to_openai, tool_to_openai
from dialoop.errors import ModelError, RenderError, echo
from dialoop.types import Message, Tool, ToolCall

MAX_CHARS = 16_000_000
_MAX_BITS = 4096
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_NO_TOKENS = guard(())
_OWN = frozenset({"messages", "tools", "add_generation_prompt", "documents"})
"""Variables that a request has fields for."""


class ChatTemplate:
    """One template and the special tokens that it may name (`bos_token`, `eos_token`, ...).

    variables: that a request may give a value. Raises ModelError where the source is not a template.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None, where: str = "") -> None:
        self.source = source
        self.where = where or "the chat template"
        self.special_tokens = dict(special_tokens or {})
        self.marks_answers = bool(_GENERATION.search(source))
        try:
            self._compiled, free = _compile(source)
            self.variables = free - self.special_tokens.keys() - _OWN
        except (jinja2.TemplateSyntaxError, RecursionError) as error:
            place = f"{self.where}, line {getattr(error, 'lineno', '?')}"
            raise ModelError(f"{place}: not a Jinja template: {reason_of(error, source)}") from error

    def shows(self, *words: str) -> bool:
        """Whether the source names one of `words`: what it never names, it drops."""
        return any(word in self.source for word in words)

    def render(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        tools: Sequence[Tool | Mapping[str, Any]] = (),
        add_generation_prompt: bool = False,
        **extras: Any,
    ) -> str:
        """The text of a dialogue. `extras` are further template variables. Raises RenderError."""
        rows = [template_message(m) if isinstance(m, Message) else m for m in messages]
        offered = [template_tool(t) if isinstance(t, Tool) else t for t in tools]
        raw = self.render_marked(
            protect(rows, _NO_TOKENS), protect(offered, _NO_TOKENS), add_generation_prompt, extras
        )
        return read_marks(raw).text

    def render_marked(
        self,
        rows: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        extras: Mapping[str, Any],
    ) -> str:
        """The text with OPEN and CLOSE around `{% generation %}` blocks; the input must be protected."""
        context = {
            "documents": None,
            **self.special_tokens,
            **extras,
            "messages": rows,
            "tools": list(tools) or None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return bounded(self._compiled.generate(context))
        except Exception as error:  # a template is foreign code and may raise anything
            reason = reason_of(error, self.source)
            raise RenderError(f"{self.where} refuses the conversation: {reason}") from error


def template_message(message: Message) -> dict[str, Any]:
    """A message as templates expect it: content is text, the arguments of calls are parsed."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        row["reasoning_content"] = row["thinking"] = message.reasoning
    if message.name is not None:
        row["name"] = message.name
    if message.tool_calls:
        row["tool_calls"] = [_template_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row


def template_tool(tool: Tool) -> dict[str, Any]:
    """A tool as templates expect it: custom ones are functions of one text."""
    if tool.kind == "custom":
        tool = Tool(tool.name, tool.description, input_schema(tool))
    return tool_to_openai(tool)


def _template_call(call: ToolCall) -> dict[str, Any]:
    arguments = {"input": call.arguments} if call.kind == "custom" else _parsed(call.arguments)
    row = call_to_openai(replace(call, kind="function"))
    row["function"]["arguments"] = arguments
    return row


def _parsed(arguments: str) -> Any:
    """The object that `arguments` spells, or the text itself where it spells none."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def bounded(pieces: Iterable[str]) -> str:
    """The pieces joined. Raises SecurityError beyond MAX_CHARS."""
    kept: list[str] = []
    length = 0
    for piece in pieces:
        kept.append(piece)
        length += len(piece)
        if length > MAX_CHARS:
            raise SecurityError(f"more than {MAX_CHARS} characters")
    return "".join(kept)


def reason_of(error: Exception, source: str) -> str:
    """What a template says, verbatim only where the template itself spells it: it may quote content."""
    text = str(error).strip().split("\n")[0]
    if isinstance(error, jinja2.TemplateSyntaxError | SecurityError) or (text and text in source):
        return text[:200]
    return f"{type(error).__name__} {echo(text)}"


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: marks what the assistant wrote."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own declaration)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        return f"{OPEN}{caller()}{CLOSE}"


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox, with a bound on what repetition and powers may make."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for value, count in ((left, right), (right, left)):
                if isinstance(value, str | list | tuple) and isinstance(count, int):
                    _refuse(len(value) * count > MAX_CHARS)
        elif isinstance(left, int) and isinstance(right, int):
            _refuse(left.bit_length() * right > _MAX_BITS)
        return super().call_binop(context, operator, left, right)


def _refuse(too_large: bool) -> None:
    if too_large:
        raise SecurityError("a result is too large")


class _PlainNamespace(Namespace):
    """A namespace whose attributes cannot begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        Namespace.__init__(*args, **kwargs)
        for name in dict(*args[1:], **kwargs):
            _public(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        super().__setitem__(name, value)


def _public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError("names on a namespace cannot begin with an underscore")


class _DictMaker:
    """`dict(...)` and `dict.fromkeys(...)`, and nothing else of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def sandbox(**options: Any) -> ImmutableSandboxedEnvironment:
    """An environment for templates from elsewhere: no names with underscores, nothing that is huge."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, **options)
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise, dict=_DictMaker(), namespace=_PlainNamespace)
    return environment


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = sandbox(extensions=[_Generation, loopcontrols])
    environment.globals["strftime_now"] = _now
    return environment


@lru_cache(maxsize=64)
def _compile(source: str) -> tuple[jinja2.Template, frozenset[str]]:
    """With the names that the template reads and does not set."""
    environment = _environment()
    free = meta.find_undeclared_variables(environment.parse(source))
    return environment.from_string(source), frozenset(free - environment.globals.keys())
