"""Tags that name spans: IOB1, IOB2 and BIOES, and IOB2 made of each.

Ramshaw and Marcus 1995 (IOB1); Tjong Kim Sang and Veenstra 1999 (IOB2); BIOES is IOB2 with S- and E- for
spans of one word and for last words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dialoop.errors import DataError, echo

Scheme = Literal["iob1", "iob2", "bioes", "labels"]
_TAG = re.compile(r"(?P<place>[BIESLUM])-(?P<kind>.+)")
_SAME = {"L": "E", "U": "S", "M": "I"}
"""BILOU's and BMES's letters, in BIOES."""


def scheme_of(sentences: Iterable[Sequence[str]]) -> Scheme:
    """How the tags of a whole file mark their spans; `labels` where they name none, as parts of speech."""
    begins = inside_first = ends = False
    for tags in sentences:
        before = "O"
        for tag in tags:
            place, kind = _parts(tag)
            if place is None and tag != "O":
                return "labels"
            ends = ends or place in ("E", "S")
            follows = before[2:] == kind if before != "O" else False
            begins = begins or (place == "B" and not follows)
            inside_first = inside_first or (place == "I" and not follows)
            before = tag
    if ends:
        return "bioes"
    return "iob1" if inside_first and not begins else "iob2"


def to_iob2(tags: Sequence[str], scheme: Scheme) -> tuple[str, ...]:
    """`tags` in IOB2. Raises DataError where they break their scheme: a span that nothing begins."""
    if scheme == "labels":
        return tuple(tags)
    made: list[str] = []
    open_kind: str | None = None
    for i, tag in enumerate(tags):
        place, kind = _parts(tag)
        if place is None and tag != "O":
            raise DataError(f"tag {echo(tag)} at word {i + 1}: expected O, or B- or I- and a name")
        continues = place in ("I", "E") and kind == open_kind
        if place in ("I", "E") and not continues and scheme != "iob1":
            raise DataError(f"tag {echo(tag)} at word {i + 1} goes on with a span that has not begun")
        made.append("O" if kind is None else f"{'I' if continues else 'B'}-{kind}")
        open_kind = None if place in ("E", "S") else kind
    return tuple(made)


def _parts(tag: str) -> tuple[str | None, str | None]:
    found = _TAG.fullmatch(tag)
    return (None, None) if found is None else (_SAME.get(found["place"], found["place"]), found["kind"])


def repaired(tags: Sequence[str]) -> tuple[str, ...]:
    """A model's tags in strict IOB2: a span that nothing begins, begins."""
    made: list[str] = []
    for tag in tags:
        kind = tag[2:]
        begun = bool(made) and made[-1][2:] == kind and made[-1] != "O"
        made.append(f"B-{kind}" if tag.startswith("I-") and not begun else tag)
    return tuple(made)


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """Tokens `start` to `stop` of the kind `label`."""

    start: int
    stop: int
    label: str


def spans(tags: Sequence[str]) -> frozenset[Span]:
    """The spans of a sequence of `B-x`, `I-x` and `O`; an `I-x` that follows no `x` belongs to none."""
    found, start, label = [], 0, ""
    for place, tag in enumerate([*tags, "O"]):
        if label and tag != f"I-{label}":
            found.append(Span(start, place, label))
            label = ""
        if tag.startswith("B-"):
            start, label = place, tag[2:]
    return frozenset(found)
