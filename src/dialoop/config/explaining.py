"""What the fields of a recipe mean, from the lines that stand below them in the code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dialoop.config.settings import Settings
from dialoop.errors import ConfigError, echo, nearest


@dataclass(frozen=True, slots=True)
class Explained:
    """One field: where it stands, what it takes, what it is unless told, and what it does."""

    path: str
    takes: str
    default: str
    meaning: str


def explain(kind: type[Settings], path: str = "") -> Iterator[tuple[str, str, list[Explained]]]:
    """Tables at or below the dotted `path`: (path, what it is, its fields); a choice gives one a member.

    Raises ConfigError where there is no such field.
    """
    at: list[type[BaseModel]] = [kind]
    for part in filter(None, path.split(".")):
        fields = {name: field for each in at for name, field in each.model_fields.items()}
        if part not in fields:
            raise ConfigError(f"{echo(path)} is no field of a recipe{nearest(part, fields)}")
        inner = _tables(fields[part].annotation)
        if not inner:
            owner = next(each for each in at if part in each.model_fields)
            yield path, "", [_field(path, owner.model_fields[part])]
            return
        at = inner
    for each in at:
        prefix = f"{path}." if path else ""
        told = [_field(prefix + name, field) for name, field in each.model_fields.items()]
        yield path, cleandoc(each.__doc__ or ""), told


def _tables(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables(part)]


def _field(path: str, field: FieldInfo) -> Explained:
    bounds = [_bound(each) for each in field.metadata]
    takes = _takes(field.annotation) + "".join(f", {bound}" for bound in bounds if bound)
    default = "required" if field.default is PydanticUndefined else _shown(field.default)
    return Explained(path, takes, default, " ".join((field.description or "").split()))


def _takes(annotation: Any) -> str:
    if tables := _tables(annotation):
        kinds = [table.model_fields["kind"].default for table in tables if "kind" in table.model_fields]
        return "table" + (f" of kind {', '.join(kinds)}" if kinds else "")
    if get_origin(annotation) is None:
        return "none" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))
    if str(get_origin(annotation)).endswith("Literal"):
        return " | ".join(f'"{each}"' for each in get_args(annotation))
    parts = [_takes(each) for each in get_args(annotation) if each is not Ellipsis]
    if get_origin(annotation) is dict:
        return f"table of {parts[1]} by {parts[0]}"
    return f"list of {', '.join(parts)}" if get_origin(annotation) is tuple else " | ".join(parts)


def _bound(constraint: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(constraint, key):g}" for key, sign in signs.items() if hasattr(constraint, key)
    ]
    return ", ".join(found)


def _shown(value: Any) -> str:
    if isinstance(value, BaseModel):
        return f"kind {value.kind}" if hasattr(value, "kind") else "its defaults"
    return f'"{value}"' if isinstance(value, str) else str(value)
