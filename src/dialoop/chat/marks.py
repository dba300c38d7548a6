"""Invisible marks that travel through a chat template: where control tokens are spelt, where answers lie.

The marks are Unicode noncharacters (U+FDD0..U+FDD3, "for internal use"); where a text already holds
one, it is escaped on the way in and restored on the way out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BREAK, OPEN, CLOSE, ESCAPE = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_MARKS = BREAK + OPEN + CLOSE + ESCAPE
_FOUND = re.compile(f"{ESCAPE}[A-D]?|[{BREAK}{OPEN}{CLOSE}]")


@dataclass(frozen=True, slots=True)
class Marked:
    """A rendered text without its marks, and where they lay (offsets in characters).

    breaks: no control token may cover these.  spans: (start, end) of the `{% generation %}` blocks.
    """

    text: str
    breaks: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


def guard(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern of what `protect` must touch: the marks themselves, and these control tokens."""
    longest_first = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
    return re.compile("|".join([f"[{_MARKS}]", *map(re.escape, longest_first)]))


def protect(value: Any, pattern: re.Pattern[str]) -> Any:
    """`value` (text, or JSON-like lists and mappings of it) with a BREAK inside each control token."""
    if isinstance(value, str):
        return pattern.sub(_protected, value) if pattern.search(value) else value
    if isinstance(value, Mapping):
        return {protect(key, pattern): protect(item, pattern) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [protect(item, pattern) for item in value]
    return value


def _protected(match: re.Match[str]) -> str:
    found = match[0]
    if len(found) == 1:
        return ESCAPE + chr(ord("A") + _MARKS.index(found))
    return found[0] + BREAK + found[1:]


def read_marks(rendered: str) -> Marked:
    """Take the marks out of what a template has rendered."""
    if not _FOUND.search(rendered):
        return Marked(rendered)
    pieces: list[str] = []
    breaks: list[int] = []
    opened: list[int] = []
    spans: list[tuple[int, int]] = []
    length = last = 0
    for match in _FOUND.finditer(rendered):
        pieces.append(rendered[last : match.start()])
        length += match.start() - last
        last = match.end()
        mark = match[0]
        if mark == BREAK:
            breaks.append(length)
        elif mark == OPEN:
            opened.append(length)
        elif mark == CLOSE and opened:
            spans.append((opened.pop(), length))
        elif len(mark) == 2:
            pieces.append(_MARKS[ord(mark[1]) - ord("A")])
            length += 1
    pieces.append(rendered[last:])
    return Marked("".join(pieces), tuple(breaks), tuple(sorted(spans)))
