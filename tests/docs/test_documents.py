"""What the documents promise exists: links, recipes, commands and options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from dialoop.cli.app import app
from dialoop.config import load_any
from dialoop.config.kinds import KINDS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
RECIPES = sorted((ROOT / "src/dialoop/assets/recipes").glob("*.toml"))


def commands(text: str) -> Iterator[list[str]]:
    """The dialoop commands in a document's console blocks."""
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0].endswith("dialoop"):
                yield words[1:]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert lost == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_option_shown_exists(document: Path) -> None:
    root = typer.main.get_command(app)
    for words in commands(document.read_text(encoding="utf-8")):
        command, rest = root, list(words)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]  # type: ignore[attr-defined]
        assert not hasattr(command, "commands"), f"no such command: dialoop {' '.join(words)}"
        known = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word.split("=")[0] for word in rest if word.startswith("--")} <= known, words


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    recipe = load_any(path, KINDS)
    assert KINDS[recipe.kind] is type(recipe)  # type: ignore[attr-defined]


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = (
        [words[0] for words in commands((ROOT / name).read_text(encoding="utf-8"))]
        for name in ("README.md", "README.zh.md")
    )
    assert english == chinese
    assert len(english) >= 5
