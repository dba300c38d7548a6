"""Recipes by path or by the name of a shipped one, and where their runs lie."""

from __future__ import annotations

import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from dialoop.errors import ConfigError, nearest

RecipeName = Annotated[
    str, typer.Argument(help="A TOML file, or the name of a shipped recipe.", metavar="RECIPE")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a field, as in --set train.epochs=2.")]
RunFolder = Annotated[
    Path | None, typer.Option("--run", help="Run directory; one that holds an interrupted run is resumed.")
]


def find_recipe(name: str) -> Path:
    """The path itself, or the shipped recipe of that name. Raises ConfigError with the nearest name."""
    if Path(name).is_file():
        return Path(name)
    folder = Path(str(files("dialoop.assets").joinpath("recipes")))
    shipped = {path.stem: path for path in folder.glob("*.toml")}
    stem = Path(name).stem
    if stem in shipped and (name == stem or Path(name).parent.name == "recipes"):
        return shipped[stem]
    raise ConfigError(f"{name}: no such file and no shipped recipe of that name{nearest(stem, shipped)}")


def command_line() -> str:
    """The command as it was given, for reports."""
    return shlex.join(["dialoop", *sys.argv[1:]])
