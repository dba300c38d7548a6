"""Whether a generated answer runs in circles, and whether it is in the language that was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from dialoop.data.language import detect
from dialoop.evals.words import is_han, is_kana, words

# A word weighs as much as one and a half Chinese characters: 4 words or 6 characters make a unit.
_WORD_WEIGHT, _CHARACTER_WEIGHT, _UNIT = 3, 2, 12
LEAST = _UNIT // _WORD_WEIGHT
"""Words of the least unit: an answer that loops has as many in a row twice."""


def loops(text: str) -> bool:
    """True where `text` repeats itself without end.

    A unit is an n-gram of at least 4 words or 6 Chinese characters (mixed: a word counts 1.5
    characters; case and punctuation are ignored). It loops when
    - a unit stands three times in a row ("yes yes yes ..." loops from the twelfth yes), or
    - a unit that occurs three times or more, or one of double size that occurs twice or more,
      covers over half of the text (occurrences do not overlap).
    """
    tokens = words(text)
    again = _said_again(tokens)
    if not any(again):
        return False
    most = 2 * _weight([token for token, twice in zip(tokens, again, strict=True) if twice])
    return _in_a_row(tokens) or (most > _weight(tokens) and _covers(tokens))


def _said_again(tokens: Sequence[str]) -> list[bool]:
    """Tokens in an n-gram of the least size that is there twice: no others can be in a unit."""
    grams = [tuple(tokens[i : i + LEAST]) for i in range(len(tokens) - LEAST + 1)]
    counts, again = Counter(grams), [False] * len(tokens)
    for i, gram in enumerate(grams):
        if counts[gram] > 1:
            again[i : i + LEAST] = [True] * LEAST
    return again


def _weight(tokens: Sequence[str]) -> int:
    return sum(_CHARACTER_WEIGHT if is_han(t) or is_kana(t) else _WORD_WEIGHT for t in tokens)


def _in_a_row(tokens: Sequence[str]) -> bool:
    """A unit three times in a row: tokens equal to those one period later, over two periods."""
    for period in range(LEAST, len(tokens) // 3 + 1):
        run = 0
        for i in range(len(tokens) - period):
            run = run + 1 if tokens[i] == tokens[i + period] else 0
            if run >= 2 * period and _weight(tokens[i - period + 1 : i + 1]) >= _UNIT:
                return True
    return False


def _covers(tokens: Sequence[str]) -> bool:
    """A repeated unit over half of the text."""
    whole = _weight(tokens)
    for size in range(LEAST, len(tokens) // 2 + 1):
        for unit, count in _occurrences(tokens, size).items():
            weight = _weight(unit)
            needed = 2 if weight >= 2 * _UNIT else 3
            if weight >= _UNIT and count >= needed and 2 * weight * count > whole:
                return True
    return False


def _occurrences(tokens: Sequence[str], size: int) -> dict[tuple[str, ...], int]:
    """How often each n-gram of `size` occurs without overlapping itself, counted from the left."""
    free: dict[tuple[str, ...], int] = {}
    counts: dict[tuple[str, ...], int] = {}
    for i in range(len(tokens) - size + 1):
        unit = tuple(tokens[i : i + size])
        if i >= free.get(unit, 0):
            free[unit] = i + size
            counts[unit] = counts.get(unit, 0) + 1
    return counts


def answers_in(text: str, language: Literal["en", "zh"]) -> bool:
    """Whether `text` answers in `language`. A bare number belongs to every language, silence to none."""
    tokens = words(text)
    if tokens and all(t.isdigit() for t in tokens):
        return True
    return detect(text) == language
