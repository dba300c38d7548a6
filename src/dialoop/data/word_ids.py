"""Words as token ids, one by one, so that each has a token of its own to carry its tag."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import regex

from dialoop.chat.plain import TextTokenizer
from dialoop.data.language import touches

_WORD = regex.compile(
    r"\p{Han}|\p{N}+(?:[.,:/-]\p{N}+)*|['’](?:s|t|re|ve|m|ll|d)\b|[\p{L}\p{M}--\p{Han}]+(?:-[\p{L}\p{M}--\p{Han}]+)*"
    r"|[^\s\p{Han}]",
    regex.V1 | regex.IGNORECASE,
)


def split_words(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end: runs of letters, numbers, Chinese characters one by one, other
    signs one by one.
    """
    return [found.span() for found in _WORD.finditer(text)]


class WordIds:
    """Sentences of words as token ids. frame: how many of these stand around every text."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._spell = lru_cache(100_000)(lambda text: tokenizer.encode(text, framed=False))
        self.frame = len(tokenizer.frame([]))
        self._first = tokenizer.frame([-1]).index(-1)

    def ids(self, words: Sequence[str], max_length: int | None = None) -> tuple[list[int], list[int]]:
        """The ids, and the place of each word's first; words beyond `max_length` are left out."""
        ids: list[int] = []
        places: list[int] = []
        for i, word in enumerate(words):
            pieces = self._pieces(word, bool(i) and not touches(words[i - 1], word))
            if max_length is not None and self.frame + len(ids) + len(pieces) > max_length:
                break
            places.append(self._first + len(ids))
            ids += pieces
        return self._tokenizer.frame(ids), places

    def _pieces(self, word: str, spaced: bool) -> list[int]:
        return self._spell(f" {word}" if spaced else word) or self._spell(".")
