"""Values of a prompt's variables, as options give them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dialoop.errors import ConfigError

SetValue = Annotated[
    list[str] | None, typer.Option("--set", help="A variable, as in --set into=zh; NAME=@FILE reads a file.")
]


def values_of(given: list[str]) -> dict[str, str]:
    """NAME=VALUE, NAME=@FILE. Raises ConfigError."""
    found = {}
    for each in given:
        name, separator, value = each.partition("=")
        if not separator or not name:
            raise ConfigError(f"--set {each[:64]}: expected NAME=VALUE, such as --set into=zh")
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8"
                raise ConfigError(f"--set {name}: {value[1:]}: {reason}: give a text file") from error
        found[name] = value
    return found
