"""Words as ROUGE, distinct-n and lengths count them, right for Chinese too.

rouge-score's own tokenizer keeps `[a-z0-9]+` alone, so that Chinese vanishes and scores 0.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from dialoop.evals.grams import Coded, Numbering

WordUnit = Literal["characters", "words"]
"""What counts as a word in Chinese."""
TOKENIZER_NAME = "cjk-char+word"

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff々〇"
KANA = "\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff"
_WORD = re.compile(rf"[{HAN}{KANA}]|(?:(?![{HAN}{KANA}])[^\W_])+")
_PIECE = re.compile(rf"\s+|[{HAN}{KANA}]|(?:(?![{HAN}{KANA}])\w)+|.", re.DOTALL)
_HAN = re.compile(rf"[{HAN}]")
_KANA = re.compile(rf"[{KANA}]")


def words(text: str) -> list[str]:
    """Lower-case words; every Chinese character or kana is a word of its own, punctuation is dropped.

    Equal to rouge-score's default (no stemming) on ASCII text. Full-width letters and digits are
    folded (NFKC); runs of letters of other scripts are words.
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def pieces(text: str) -> list[str]:
    """`text` cut into words, CJK characters, runs of space and single others; they join to `text`."""
    return _PIECE.findall(text)


def normalised(text: str) -> str:
    """`text` with case, width (NFKC) and runs of white space made equal, for exact match."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def is_han(word: str) -> bool:
    """Whether a word of `words` is one Chinese character."""
    return _HAN.match(word) is not None


def is_kana(word: str) -> bool:
    """Whether a word of `words` is one kana."""
    return _KANA.match(word) is not None


def chinese_words(text: str) -> list[str]:
    """Lower-case words, Chinese ones as rjieba cuts them; punctuation is dropped."""
    import rjieba  # its dictionary takes a moment

    folded = unicodedata.normalize("NFKC", text).lower()
    return [word for word in rjieba.cut(folded) if any(map(str.isalnum, word))]


def words_of(texts: Sequence[str], by: WordUnit = "characters") -> tuple[tuple[str, ...], ...]:
    """The words of every text; kept for the next metric of the same texts."""
    return _cut(tuple(texts), by)


@lru_cache(maxsize=4)
def _cut(texts: tuple[str, ...], by: WordUnit) -> tuple[tuple[str, ...], ...]:
    cut = words if by == "characters" else chinese_words
    return tuple(tuple(cut(text)) for text in texts)


def coded_words(
    said: Sequence[str], right: Sequence[str], by: WordUnit = "characters"
) -> tuple[Coded, Coded]:
    """The words of both, numbered alike; kept for the next metric of the same texts."""
    return _coded(tuple(said), tuple(right), by)


@lru_cache(maxsize=2)
def _coded(said: tuple[str, ...], right: tuple[str, ...], by: WordUnit) -> tuple[Coded, Coded]:
    if by == "words":
        numbering = Numbering(chinese_words)
        return numbering.coded([text] for text in said), numbering.coded([text] for text in right)
    numbering = Numbering(words)
    return numbering.coded(map(str.split, said)), numbering.coded(map(str.split, right))


def forget_words() -> None:
    """Free what is kept."""
    _cut.cache_clear()
    _coded.cache_clear()
