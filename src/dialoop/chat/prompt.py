"""Prompt templates: a dialogue, and the values of variables, become what a model is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dialoop.chat.template import bounded, reason_of, sandbox
from dialoop.config.prompts import ExampleSettings, PromptSettings, VariableSettings
from dialoop.errors import ConfigError, RenderError, RequestError, echo, nearest
from dialoop.types import Conversation, Message

PARAM = "prompt.variables"
_TEXTS = {"text": str, "boolean": bool, "integer": int, "number": int | float}
_SYSTEM = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt template, ready to ask. Raises ConfigError where its wordings and variables do not fit."""

    settings: PromptSettings
    _parts: Mapping[tuple[str, str], jinja2.Template] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", _compiled(self.settings))

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that it has words in; the first stands in for others."""
        return tuple(self.settings.wording)

    def language_for(self, language: str | None) -> str:
        """The language that it speaks to someone of `language`."""
        return language if language in self.settings.wording else self.languages[0]

    @property
    def reads_dialogue(self) -> bool:
        """Whether a variable is taken from what is asked."""
        return any(variable.from_ for variable in self.settings.variables.values())

    def values_in(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Of the variables that a row's metadata name; those that are taken from what is asked are not."""
        return {
            name: metadata[name]
            for name, variable in self.settings.variables.items()
            if variable.from_ is None and metadata.get(name) is not None
        }

    def examples(self, language: str | None = None) -> tuple[Conversation, ...]:
        """Its own examples for a language."""
        wanted = self.language_for(language)
        return tuple(conversation_of(e) for e in self.settings.examples if e.language in (None, wanted))

    def ask(
        self,
        history: Conversation | None = None,
        values: Mapping[str, Any] | None = None,
        *,
        language: str | None = None,
        examples: Sequence[Conversation] | None = None,
    ) -> Conversation:
        """What a model is asked: the system message, the examples, and the question.

        The turns of `history` follow the prompt's own, but for those that a variable is taken from; its
        system messages join the prompt's. values: of variables, as text or as what they are.
        examples: None = its own; each is put into the same words as the question.
        language: None = that of the history's metadata.  Raises RequestError, RenderError.
        """
        history = history or Conversation(())
        language = self.language_for(language or history.metadata.get("language"))
        given = self.read(values or {})
        shown = self.examples(language) if examples is None else examples
        turns = [turn for each in shown for turn in self._shown(each, given, language)]
        filled = self._filled(history, given)
        said = [self._say(language, "system", filled, history), *_texts(history, _SYSTEM)]
        system = "\n\n".join(text for text in said if text)
        first = (Message("system", system),) if system else ()
        return replace(history, messages=(*first, *turns, *self._question(history, filled, given, language)))

    def shown(
        self, example: Conversation, values: Mapping[str, Any], language: str | None = None
    ) -> tuple[Message, ...]:
        """An example as it is shown: in the words of the prompt, its answer last. Raises as `ask`."""
        return tuple(self._shown(example, self.read(values), self.language_for(language)))

    def read(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all variables that were given or have a default. Raises RequestError."""
        known = self.settings.variables
        for name in values:
            if name not in known:
                near = nearest(str(name)[:64], known)
                raise RequestError(
                    f"prompt {self.settings.name!r} has no variable {echo(name)}{near}",
                    param=f"{PARAM}.{name}"[:64],
                )
        found = {name: value_of(known[name], value, f"{PARAM}.{name}") for name, value in values.items()}
        defaults = {
            name: value_of(variable, variable.default, f"{PARAM}.{name}")
            for name, variable in known.items()
            if variable.default is not None and variable.from_ is None
        }
        return defaults | found

    def _filled(self, history: Conversation, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given`, and what is taken from the history."""
        taken: dict[str, Any] = {}
        for name, variable in self.settings.variables.items():
            if name in given or variable.from_ is None:
                continue
            turns = [turn for turn in history.messages if turn.role not in _SYSTEM]
            if variable.from_ == "dialogue" and turns:
                taken[name] = [{"role": turn.role, "content": turn.content} for turn in turns]
            elif variable.from_ == "last" and (last := _last_user(history)) is not None:
                taken[name] = history.messages[last].content
            elif variable.default is not None:
                taken[name] = value_of(variable, variable.default, f"{PARAM}.{name}")
        return {**given, **taken}

    def _question(
        self, history: Conversation, filled: Mapping[str, Any], given: Mapping[str, Any], language: str
    ) -> list[Message]:
        """The turns that ask, the system's left out."""
        asked = self._say(language, "user", filled, history)
        mine = [Message("user", asked)] if asked else []
        taken = [self.settings.variables[name].from_ for name in filled.keys() - given.keys()]
        turns = list(history.messages)
        if "dialogue" in taken:
            return mine
        if "last" in taken and (last := _last_user(history)) is not None:
            turns[last : last + 1] = mine
            mine = []
        return [*mine, *(turn for turn in turns if turn.role not in _SYSTEM)]

    def _shown(self, example: Conversation, given: Mapping[str, Any], language: str) -> list[Message]:
        """An example's turns, in the words of the prompt, its answer last."""
        history = replace(example.history, metadata={})
        own = {name for name, variable in self.settings.variables.items() if variable.from_}
        others = {name: value for name, value in given.items() if name not in own}
        asked = self._question(history, self._filled(history, others), others, language)
        return [*asked, Message("assistant", example.answer)]

    def _say(self, language: str, part: str, values: Mapping[str, Any], history: Conversation) -> str:
        template = self._parts.get((language, part))
        if template is None:
            return ""
        where = f"prompt {self.settings.name!r}, wording.{language}.{part}"
        try:
            return bounded(template.generate(dict(values))).strip()
        except jinja2.UndefinedError as error:
            missing = [name for name in self._needed(language, part) if name not in values]
            if not missing:
                raise RenderError(f"{where}: {error.message}: see its variables") from error
            param = f"{PARAM}.{missing[0]}"
            if self.settings.variables[missing[0]].from_:
                raise RequestError(
                    f"{where} asks about a user's turn, and none came: send one", param="messages"
                ) from error
            raise RequestError(f"{param} is missing: give it, {where} needs it", param=param) from error
        except Exception as error:
            source = getattr(self.settings.wording[language], part)
            raise RenderError(f"{where} cannot be said: {reason_of(error, source)}") from error

    def _needed(self, language: str, part: str) -> list[str]:
        return sorted(_free(getattr(self.settings.wording[language], part)))


def conversation_of(example: ExampleSettings) -> Conversation:
    """An example as the dialogue that it is."""
    facts = {"language": example.language, "intent": example.label}
    turns = tuple(Message(turn.role, turn.content) for turn in example.messages)
    return Conversation(turns, metadata={key: value for key, value in facts.items() if value is not None})


def value_of(variable: VariableSettings, value: Any, where: str) -> Any:
    """A value as the template sees it; texts are read as what the variable is. Raises RequestError."""
    if isinstance(value, Mapping) and value.get("type") == "input_text" and variable.kind != "object":
        value = value.get("text")
    if isinstance(value, str) and variable.kind != "text":
        value = _read(variable.kind, value, where)
    if not _is(variable.kind, value):
        raise _unfit(variable.kind, value, where)
    if variable.choices and value not in variable.choices:
        raise RequestError(
            f"{where} = {echo(value)}{nearest(str(value)[:64], variable.choices)}", param=where
        )
    return value


def _read(kind: str, text: str, where: str) -> Any:
    if kind == "list" and not text.lstrip().startswith("["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _unfit(kind, text, where) from None


def _is(kind: str, value: Any) -> bool:
    if kind in _TEXTS:
        return isinstance(value, _TEXTS[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if kind == "object":
        return isinstance(value, Mapping | list)
    if not isinstance(value, list | tuple):
        return False
    if kind == "list":
        return all(isinstance(each, str) for each in value)
    return all(
        isinstance(each, Mapping)
        and isinstance(each.get("role"), str)
        and isinstance(each.get("content"), str)
        for each in value
    )


def _unfit(kind: str, value: Any, where: str) -> RequestError:
    wanted = {
        "text": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
        "list": "a list of texts, as JSON or one a line", "object": "JSON",
        "dialogue": "a list of turns, each with a role and a content",
    }  # fmt: skip
    return RequestError(f"{where} = {echo(value)}: expected {wanted[kind]}", param=where)


def _last_user(history: Conversation) -> int | None:
    return next(
        (i for i in range(len(history.messages) - 1, -1, -1) if history.messages[i].role == "user"), None
    )


def _texts(history: Conversation, roles: Sequence[str]) -> list[str]:
    return [turn.content for turn in history.messages if turn.role in roles]


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    return sandbox(undefined=jinja2.StrictUndefined)


@lru_cache(maxsize=256)
def _template(source: str) -> jinja2.Template:
    return _environment().from_string(source)


@lru_cache(maxsize=256)
def _free(source: str) -> frozenset[str]:
    """Variables that a template reads and does not set."""
    environment = _environment()
    free = meta.find_undeclared_variables(environment.parse(source))
    return frozenset(free - environment.globals.keys())


def _compiled(settings: PromptSettings) -> dict[tuple[str, str], jinja2.Template]:
    """Each part that says something, by language and role. Raises ConfigError."""
    parts: dict[tuple[str, str], jinja2.Template] = {}
    used: set[str] = set()
    for language, wording in settings.wording.items():
        for part in ("system", "user"):
            source = getattr(wording, part)
            where = f"prompt {settings.name!r}, wording.{language}.{part}"
            try:
                free = _free(source)
                parts |= {(language, part): _template(source)} if source.strip() else {}
            except (jinja2.TemplateSyntaxError, RecursionError) as error:
                line = getattr(error, "lineno", "?")
                raise ConfigError(
                    f"{where}, line {line}: not a Jinja template: {reason_of(error, source)}"
                ) from error
            for name in sorted(free - settings.variables.keys()):
                raise ConfigError(
                    f"{where} reads {echo(name)}, which is no variable{nearest(name, settings.variables)}: "
                    f"add [variables.{name}]"
                )
            used |= free
        for name, variable in settings.variables.items():
            if variable.from_ and name not in _free(wording.user):
                raise ConfigError(
                    f"prompt {settings.name!r}, wording.{language}.user does not read {name!r}, which is "
                    f"taken from what is asked: use it there"
                )
    for name in sorted(settings.variables.keys() - used):
        raise ConfigError(f"prompt {settings.name!r} reads variable {name!r} nowhere: use it, or remove it")
    return parts
