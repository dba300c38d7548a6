"""Looks for rules in a text that comes in pieces, and holds back only what may yet become a match.

Whatever the pieces, the finds are those in the whole text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from dialoop.safety.categories import Action, Category
from dialoop.safety.fold import fold_character
from dialoop.safety.rules import LONGEST, Rule

# No text holds it: a pattern that ends in it is always incomplete, which shows where one may yet grow.
_NEVER = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Find:
    """Where a rule matched, in characters of the text as it came.

    entry: the rule.  read: found by a model, whose name and probability `entry` is.
    """

    category: Category
    action: Action
    entry: str
    start: int
    end: int
    read: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Rules of one category and action: found by one pattern, told apart afterwards."""

    category: Category
    action: Action
    rules: tuple[tuple[str, Any], ...]
    found: Any
    growing: Any


def compile_rules(rules: Iterable[Rule]) -> tuple[Group, ...]:
    """The rules by category and action."""
    gathered: dict[tuple[Category, Action], list[Rule]] = {}
    for rule in rules:
        gathered.setdefault((rule.category, rule.action), []).append(rule)
    return tuple(_group(*kind, mine) for kind, mine in gathered.items())


def _group(category: Category, action: Action, rules: Sequence[Rule]) -> Group:
    either = "|".join(sorted({rule.pattern for rule in rules}, key=lambda p: (-len(p), p)))
    apart = tuple((rule.entry, regex.compile(rule.pattern)) for rule in rules)
    return Group(
        category, action, apart, regex.compile(f"(?:{either})"), regex.compile(f"(?:{either}){_NEVER}")
    )


class Scan:
    """One text. `push` gives the finds that no further text can change, in order of their groups."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._folded = ""
        self._origin: list[int] = []
        self._next = [0] * len(groups)
        self.seen = 0
        """Characters that came."""
        self.sure = 0
        """Before this character nothing can be found any more."""

    def push(self, text: str, *, last: bool = False) -> list[Find]:
        """What `text` makes certain; last: nothing more comes."""
        folded = list(map(fold_character, text))
        self._folded += "".join(folded)
        for place, each in enumerate(folded, self.seen):
            self._origin += [place] * len(each)
        self.seen += len(text)
        return self._look(last)

    def _look(self, last: bool) -> list[Find]:
        finds: list[Find] = []
        held = len(self._folded)
        for number, group in enumerate(self._groups):
            hold = self._take(number, group, last, finds)
            self._next[number] = max(self._next[number], hold)
            held = min(held, hold)
        self.sure = self._place(held)
        self._forget(held)
        return finds

    def _take(self, number: int, group: Group, last: bool, finds: list[Find]) -> int:
        """Add a group's finds that are certain; where the first that is not would begin."""
        while True:
            hold = len(self._folded) if last else self._growing(number, group)
            match = group.found.search(self._folded, self._next[number])
            if match is None or match.start() >= hold:
                return hold
            finds.append(self._find(group, match.start(), match.end()))
            self._next[number] = match.end()

    def _growing(self, number: int, group: Group) -> int:
        """Where the first match that more text could bring about would begin."""
        begin = self._next[number]
        while True:
            start = group.growing.search(self._folded, begin, partial=True).start()
            if len(self._folded) - start <= LONGEST:
                return int(start)
            begin = start + 1

    def _place(self, folded: int) -> int:
        return self._origin[folded] if folded < len(self._origin) else self.seen

    def _find(self, group: Group, start: int, end: int) -> Find:
        entry = next((e for e, p in group.rules if _ends(p, self._folded, start) == end), "")
        after = max(self._place(end), self._origin[end - 1] + 1)
        return Find(group.category, group.action, entry, self._origin[start], after)

    def _forget(self, held: int) -> None:
        """Let go of what is decided but for one character, which tells whether a word begins after it."""
        gone = max(held - 1, 0)
        self._folded, self._origin = self._folded[gone:], self._origin[gone:]
        self._next = [place - gone for place in self._next]


def _ends(pattern: Any, text: str, start: int) -> int | None:
    match = pattern.match(text, start)
    return match.end() if match else None
