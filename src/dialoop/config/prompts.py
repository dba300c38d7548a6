"""Prompt templates as plain files: what they are called, what they ask for and what they say."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field, field_validator, model_validator

from dialoop.config.reading import validate
from dialoop.config.settings import Settings
from dialoop.errors import ConfigError

VariableKind = Literal["text", "integer", "number", "boolean", "list", "object", "dialogue"]
_VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RESERVED = ("loop", "true", "false", "none")


class VariableSettings(Settings):
    """A value that a template asks for."""

    kind: VariableKind = "text"
    """`list` is of texts, `object` any JSON, `dialogue` a list of turns, each with a role and a content."""
    default: Any = None
    """Its value where none is given; without one it must be given."""
    from_: Literal["dialogue", "last"] | None = Field(None, alias="from")
    """Taken from what is asked unless given: all its turns, or the text of its last user turn."""
    choices: tuple[str, ...] = ()
    """For a text: no other is taken."""
    help: str = ""
    """What it is."""

    @model_validator(mode="after")
    def _fits(self) -> VariableSettings:
        wanted = {"dialogue": "dialogue", "last": "text"}.get(self.from_ or "", self.kind)
        if self.kind != wanted:
            raise ValueError(f"from = {self.from_!r} gives a {wanted}: set kind to {wanted!r}")
        if self.choices and self.kind != "text":
            raise ValueError(f"choices are of texts, and this is of kind {self.kind!r}: leave them out")
        return self


class WordingSettings(Settings):
    """What a prompt says in one language: Jinja templates that see the variables."""

    system: str = ""
    """The system message."""
    user: str = ""
    """The user message; where a variable is taken from what is asked, it takes the place of that."""

    @model_validator(mode="after")
    def _says_something(self) -> WordingSettings:
        if not (self.system.strip() or self.user.strip()):
            raise ValueError("a wording says something: give system, user or both")
        return self


class TurnSettings(Settings):
    """One turn of an example."""

    role: Literal["system", "user", "assistant", "tool"]
    """Who says it."""
    content: str
    """What is said."""


class ExampleSettings(Settings):
    """A dialogue that ends with a right answer."""

    messages: tuple[TurnSettings, ...] = Field(min_length=2)
    """Its turns, the assistant's last."""
    language: str | None = None
    """Shown in prompts of this language alone; None = in all."""
    label: str | None = None
    """Its class, where a selection keeps classes in balance."""

    @field_validator("messages")
    @classmethod
    def _ends_with_an_answer(cls, turns: tuple[TurnSettings, ...]) -> tuple[TurnSettings, ...]:
        if turns[-1].role != "assistant" or all(turn.role != "user" for turn in turns[:-1]):
            raise ValueError("an example asks and answers: a user turn, and the assistant's as the last")
        return turns


class FewShotSettings(Settings):
    """Which examples are shown, and in which order."""

    select: Literal["all", "random", "bm25", "embeddings", "mmr", "balanced"] = "all"
    """`all` as they come; `random` the same for every question; those nearest to the question by its words
    (`bm25`) or by vectors (`embeddings`); near and unlike each other (`mmr`: Carbonell and Goldstein 1998);
    `balanced` the nearest of every class before the second of any."""
    count: int = Field(4, ge=1, le=1000)
    """How many, unless they are `all`."""
    order: Literal["nearest_last", "nearest_first", "given"] = "nearest_last"
    """Of those chosen; `given` as they stood among all."""
    by: Literal["words", "vectors"] = "words"
    """What `mmr` and `balanced` take for near."""
    diversity: float = Field(0.5, ge=0, le=1)
    """Of `mmr`: 0 minds nearness alone, 1 unlikeness alone."""
    max_tokens: int | None = Field(None, ge=1)
    """Of all examples together; those that no longer fit are left out."""
    seed: int = 0
    """Of `random`."""

    @property
    def needs_vectors(self) -> bool:
        """Whether a model must embed the examples and the question."""
        return self.select == "embeddings" or (self.select in ("mmr", "balanced") and self.by == "vectors")

    @property
    def depends_on_question(self) -> bool:
        """Whether different questions are shown different examples."""
        return self.select not in ("all", "random")


class ParameterSettings(Settings):
    """How answers are drawn, where a request does not say otherwise."""

    temperature: float | None = Field(None, ge=0, le=2)
    """0 always takes the most probable token."""
    top_p: float | None = Field(None, ge=0, le=1)
    """Draw from the fewest tokens that together hold this much."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest answer."""
    stop: tuple[str, ...] = Field((), max_length=4)
    """The answer ends before the first of these."""
    seed: int | None = None
    """The same seed gives the same answer."""


class PromptSettings(Settings):
    """A prompt template, in as many languages as it has wordings."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    """What it is asked for by."""
    description: str = ""
    """What it is for."""
    variables: dict[str, VariableSettings] = Field({})
    """What it asks for."""
    wording: dict[str, WordingSettings] = Field(min_length=1)
    """By language, such as `en` and `zh`; the first is taken where a language has none."""
    examples: tuple[ExampleSettings, ...] = ()
    """Shown between the system message and the question."""
    few_shot: FewShotSettings = FewShotSettings()
    """Which of the examples are shown."""
    parameters: ParameterSettings = ParameterSettings()
    """How answers are drawn."""
    model: str | None = None
    """Who answers, where a request does not say."""
    soft: str | None = None
    """A registered model whose learnt prompt opens the text; it answers, whatever its base is called."""

    @field_validator("variables")
    @classmethod
    def _named(cls, variables: dict[str, VariableSettings]) -> dict[str, VariableSettings]:
        for name in variables:
            if not _VARIABLE.fullmatch(name) or name in _RESERVED:
                raise ValueError(f"{name[:64]!r} cannot name a variable: use a-z, 0-9 and _, a letter first")
        return variables

    @property
    def hash(self) -> str:
        """sha256 of all that it says and asks for, its name and description aside."""
        told = self.model_dump(mode="json", by_alias=True, exclude={"name", "description"})
        told["languages"] = list(self.wording)  # the first has a meaning
        return sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def toml(self) -> str:
        """As a file; reading it gives the same settings."""
        told = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return tomli_w.dumps(_without_null(told), multiline_strings=True)


def _without_null(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, Mapping):
        return {key: _without_null(each) for key, each in value.items() if each is not None}
    return [_without_null(each) for each in value] if isinstance(value, list) else value


def parse_prompt(text: str, where: str) -> PromptSettings:
    """The template in the text of a file. Raises ConfigError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from error
    return validate(PromptSettings, table, where)


def read_prompt(path: Path) -> tuple[PromptSettings, str]:
    """The template in a file, and the file's text. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"{path}: {reason}: give the TOML file of a prompt template") from error
    return parse_prompt(text, str(path)), text
