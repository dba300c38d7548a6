"""Recipes from TOML, overrides on them, and errors that name the right key."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from dialoop.config.settings import Settings
from dialoop.errors import ConfigError, echo, nearest

S = TypeVar("S", bound=Settings)


def load_recipe(path: Path, kind: type[S], overrides: Sequence[str] = ()) -> S:
    """The recipe in a TOML file with `a.b=c` overrides applied. Raises ConfigError naming the key.

    `extends = "NAME"` takes what NAME.toml beside it says for all that it does not say itself.
    """
    table = _table(path)
    for override in overrides:
        apply_override(table, override)
    return validate(kind, table, str(path))


def load_any(path: Path, kinds: Mapping[str, type[S]], overrides: Sequence[str] = ()) -> S:
    """As `load_recipe`, for the one of `kinds` that the recipe names; without a name, for the first."""
    named = _table(path).get("kind", next(iter(kinds)))
    if named not in kinds:
        raise ConfigError(f"{path}: kind = {echo(named)}{nearest(str(named), kinds)}")
    return load_recipe(path, kinds[named], overrides)


def _table(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a recipe says, over what the one says that it extends."""
    table = _toml(path)
    if "extends" not in table:
        return table
    below = path.parent / f"{str(table.pop('extends')).removesuffix('.toml')}.toml"
    if below in above or below == path:
        raise ConfigError(f"{path}: extends {below.name}, which extends this one: leave one of both out")
    return _over(_table(below, (*above, path)), table)


def _over(below: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Tables are joined key by key; one of another kind takes the place of what was there."""
    return {**below, **{key: _joined(below.get(key), value) for key, value in table.items()}}


def _joined(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return _over(old, new) if new.get("kind", old.get("kind")) == old.get("kind") else new


def _toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such recipe: give the path of a TOML file, or a shipped recipe's name")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f'{path}: not TOML: {error}: a recipe is UTF-8 text such as `name = "shop"`'
        ) from error


def apply_override(table: dict[str, Any], override: str) -> None:
    """Set one dotted key of `table`; the value is TOML, and plain words need no quotes."""
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {echo(override)}: expected a.b=value, such as --set train.epochs=2")
    *parents, last = key.strip().split(".")
    for parent in parents:
        child = table.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {key}: {parent!r} is {echo(child)}, not a table")
        table = child
    table[last] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def validate(kind: type[S], table: Mapping[str, Any], where: str) -> S:
    """`table` as settings of `kind`. Raises ConfigError with the key, what came and what is right."""
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        lines = [_describe(kind, dict(problem)) for problem in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from error


def _describe(kind: type[Settings], problem: Mapping[str, Any]) -> str:
    path = [str(part) for part in problem["loc"]]
    dotted = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {dotted!r}{nearest(path[-1], _fields(kind, problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"key {dotted!r} is missing: add it"
    return f"{dotted} = {echo(problem['input'])}: {problem['msg']}"


def _fields(kind: Any, path: Sequence[str | int]) -> list[str]:
    """Names of the fields of the settings that lie at `path` inside `kind`, tags of unions skipped."""
    if not path:
        return [field.alias or name for name, field in kind.model_fields.items()]
    head, rest = path[0], path[1:]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if head in (name, field.alias):
                return _fields(_settings_in(field.annotation, rest), _without_tag(field.annotation, rest))
    return []


def _members(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for argument in get_args(annotation) for member in _members(argument)]


def _settings_in(annotation: Any, path: Sequence[str | int]) -> type[BaseModel]:
    members = _members(annotation)
    tagged = [
        m
        for m in members
        if path and m.model_fields.get("kind") and m.model_fields["kind"].default == path[0]
    ]
    return (tagged or members or [Settings])[0]


def _without_tag(annotation: Any, path: Sequence[str | int]) -> Sequence[str | int]:
    """`path` without the tag, index or key that pydantic puts before the fields of a nested model."""
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return path if is_model else path[1:]


def expand(path: str) -> Path:
    """`path` with `~` and variables expanded. Raises ConfigError naming a variable that is not set."""
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "${" in expanded:
        variable = expanded.split("${", 1)[1].split("}", 1)[0]
        raise ConfigError(f"{path}: the variable {variable} is not set: export {variable}=/the/folder first")
    return Path(expanded)
