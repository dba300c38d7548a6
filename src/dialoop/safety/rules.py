"""Word lists: plain files of sections, words and patterns, that anyone can edit.

# a comment
[harassment mask]        a category and an action: block, mask or flag
rude word                letters may be doubled, swapped for digits or spaced out; words match whole
rude*                    and any ending
/numbers? \\d{3}/         a regular expression over the folded text
[allow]
rude word                a word of another list that is to count for nothing
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import regex

from dialoop.errors import ConfigError, echo, nearest
from dialoop.safety.categories import ACTIONS, CATEGORIES, Action, Category
from dialoop.safety.fold import fold

SHIPPED = ("en", "zh")
LONGEST = 200
"""Folded characters that a match has at most."""
_SWAPPED = {
    "a": "a4@", "b": "b8", "e": "e3", "g": "g9", "i": "i1!|", "l": "l1|", "o": "o0", "s": "s5$", "t": "t7+",
    "z": "z2",
}  # fmt: skip
_VOWELS = frozenset("aeiou")
_BETWEEN = r"[ *._~|+\-·]"
_LATIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
# An end of a stream may be the middle of a text: a pattern has to end, and may look nowhere else.
_ENDLESS = regex.compile(r"[*+]|\{\d*,\}|\(\?(?!:)|\\[1-9Zz]|[\^$]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a list. pattern: a regular expression over folded text."""

    category: Category
    action: Action
    entry: str
    pattern: str


def read_lists(sources: Sequence[str]) -> tuple[Rule, ...]:
    """The rules of shipped lists (`en`, `zh`) and of files (`file:PATH`). Raises ConfigError."""
    rules: list[Rule] = []
    allowed: set[str] = set()
    for source in sources:
        found, without = parse_list(_text(source), source)
        rules += found
        allowed |= without
    return tuple(dict.fromkeys(rule for rule in rules if fold(rule.entry) not in allowed))


def parse_list(text: str, where: str) -> tuple[list[Rule], set[str]]:
    """The rules of one list, and the folded entries that it allows. Raises ConfigError naming the line."""
    rules: list[Rule] = []
    allowed: set[str] = set()
    section: tuple[Category, Action] | Literal["allow"] | None = None
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        entry, place = line.strip(), f"{where}:{number}"
        if not entry or entry.startswith("#"):
            continue
        if entry.startswith("[") and entry.endswith("]"):
            section = _section(entry[1:-1].split(), place)
        elif section is None:
            raise ConfigError(f"{place}: an entry before any section: begin with [category action]")
        elif section == "allow":
            allowed.add(fold(entry))
        else:
            rules.append(Rule(*section, entry, _pattern(entry, place)))
    return rules, allowed


def _text(source: str) -> str:
    kind, _, path = source.partition(":")
    if source in SHIPPED:
        return (files("dialoop.safety") / "lists" / f"{source}.txt").read_text(encoding="utf-8")
    if kind != "file" or not path:
        raise ConfigError(f"list {echo(source)}: expected {', '.join(SHIPPED)} or file:PATH")
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}: mend it or take it out") from error


def _section(inside: list[str], where: str) -> tuple[Category, Action] | Literal["allow"]:
    if inside == ["allow"]:
        return "allow"
    category, action = inside if len(inside) == 2 else ("", "")
    if category not in CATEGORIES:
        raise ConfigError(
            f"{where}: [{' '.join(inside)[:64]}]: expected [category action] or [allow]"
            f"{nearest(category, CATEGORIES)}"
        )
    if action not in ACTIONS:
        raise ConfigError(f"{where}: action {echo(action)}: expected one of {', '.join(ACTIONS)}")
    return category, action


def _pattern(entry: str, where: str) -> str:
    if len(entry) > 2 and entry.startswith("/") and entry.endswith("/"):
        return _checked(entry[1:-1], where)
    if len(entry) > LONGEST // 2:
        raise ConfigError(f"{where}: a word of {len(entry)} characters: give at most {LONGEST // 2}")
    word = fold(entry)
    if not word.strip(" *"):
        raise ConfigError(f"{where}: an entry of which nothing is left when it is folded: take it out")
    return word_pattern(word)


def _checked(pattern: str, where: str) -> str:
    bare = regex.sub(r"\\[^1-9Zz]|\[\^?\]?[^\]]*\]", "", pattern)
    if found := _ENDLESS.search(bare):
        raise ConfigError(
            f"{where}: {found.group()!r} in a pattern: it has to have a longest match, and may look at "
            f"nothing beside it; write {{0,20}} in place of *"
        )
    try:
        compiled: Any = regex.compile(pattern)
    except regex.error as error:
        raise ConfigError(f"{where}: not a regular expression: {error}: mend it") from error
    if compiled.fullmatch(""):
        raise ConfigError(f"{where}: a pattern that matches nothing at all: make it longer")
    return f"(?:{pattern})"


def word_pattern(word: str) -> str:
    """A regular expression for a folded word or phrase, as people write it to get past a filter."""
    open_end = word.endswith("*")
    word = word.rstrip("*").strip(" ")
    close = "".join(_letters(word))
    shapes = [close]
    if len(word) > 2 and all(each in _LATIN for each in word):
        shapes.append(f"{_BETWEEN}{{1,2}}".join(_class(each, i) for i, each in enumerate(word)))
    before = "(?<![a-z0-9])" if word[0] in _LATIN else ""
    ending = "[a-z0-9]{0,20}" if open_end else ""
    after = f"{ending}(?![a-z0-9])" if word[-1] in _LATIN else ""
    return f"{before}(?:{'|'.join(shapes)}){after}"


def _letters(word: str) -> Iterable[str]:
    place = 0
    while place < len(word):
        letter = word[place]
        run = len(word[place:]) - len(word[place:].lstrip(letter))
        if letter == " ":
            yield " {1,3}"
        elif letter in _LATIN:
            yield f"{_class(letter, place)}{{{run},{run + 3}}}"
        else:
            yield f"{_BETWEEN}{{0,2}}".join([regex.escape(letter, literal_spaces=True)] * run)
        place += run
        wide = letter not in _LATIN and letter != " "
        if wide and place < len(word) and word[place] != " ":
            yield f"{_BETWEEN}{{0,2}}"


def _class(letter: str, place: int) -> str:
    """A letter or what stands for it; a word begins with no digit, or it would match numbers."""
    swapped = _SWAPPED.get(letter, letter) + ("*" if letter in _VOWELS and place else "")
    if place == 0:
        swapped = "".join(each for each in swapped if not each.isdigit() or each == letter)
    return f"[{swapped}]" if len(swapped) > 1 else swapped
