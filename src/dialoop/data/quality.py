"""Flags for answers that teach bad habits. A flag removes nothing by itself.

Most texts have none: cheap tests that cannot miss come before the patterns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from dialoop.types import Conversation

_RUN = re.compile(r"([^\s\d.=_*#~|+-])\1{9,}")
_PLACEHOLDER = re.compile(
    r"\{\{[^{}\n]{1,60}\}\}|\$\{\w{1,40}\}|<(?:NAME|USER|DATE|COMPANY|PHONE|EMAIL|ADDRESS|ORDER_ID)>"
    r"|\[(?:your|insert|company|customer|name|date)\b[^\]\n]{0,40}\]|\blorem ipsum\b"
    r"|[\[【](?:姓名|您的姓名|公司名称|日期|电话|地址|待填写|占位符)[\]】]",
    re.IGNORECASE,
)
_MOJIBAKE = re.compile(
    "\ufffd|锟斤拷|烫烫烫|屯屯屯|â€[™œ\u009d“”˜¦]|Ã[©¨¤¶¼±³¡]|Â[ £©®°»«]|(?:[äåæçèéï][\u0080-\u00bf]{2}){2}"
)
_MOJIBAKE_STARTS = re.compile("[\ufffd锟烫屯âÃÂäåæçèéï]")
_CONTROL_TOKEN = re.compile(r"<\|[A-Za-z_]{2,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>")
_CAPITALS = re.compile(r"[A-Z]{3}[^a-z]{10}")
_LETTERS = re.compile(r"[A-Za-z]")
_LETTER = re.compile(r"[^\W_]")
_SPACE_AND_MARKS = re.compile(r"[\W_]+")


def flags_of(conversation: Conversation) -> tuple[str, ...]:
    """Names of what looks wrong, in a fixed order."""
    answers = [m.content for m in conversation.messages if m.role == "assistant" and m.content]
    everything = "\n".join(m.content for m in conversation.messages)
    bracketed = any(mark in everything for mark in "<[{$【")
    found = {
        "repetition": any(map(_repeats, answers)),
        "bot loop": _loops(answers),
        "all capitals": any(map(_shouts, answers)),
        "short answer": bool(answers) and _is_short(answers[-1]),
        "placeholder": _has_placeholder(answers, bracketed),
        "echo": _echoes(conversation),
        "mojibake": _is_mojibake(everything),
        "control token": bracketed and _CONTROL_TOKEN.search(everything) is not None,
    }
    return tuple(name for name, present in found.items() if present)


def _has_placeholder(answers: list[str], bracketed: bool) -> bool:
    return (bracketed or any("lorem" in answer.casefold() for answer in answers)) and any(
        map(_PLACEHOLDER.search, answers)
    )


def _is_mojibake(text: str) -> bool:
    return not text.isascii() and bool(_MOJIBAKE_STARTS.search(text)) and bool(_MOJIBAKE.search(text))


def _repeats(text: str) -> bool:
    """A long run of one character or word, or word 4-grams (character 3-grams) that mostly recur."""
    words = text.split()
    if _has_run(words, 8):
        return True
    if len(words) >= 24:
        recur = _mostly_recur(words, 4)
    else:
        recur = len(text) >= 16 and not text.isascii() and _mostly_recur(text, 3)
    return recur or (max(map(len, words), default=0) >= 10 and any(map(_RUN.search, words)))


def _has_run(words: Sequence[str], length: int) -> bool:
    """Whether a word stands `length` times in a row; one pair in `length - 1` shows whether it may."""
    like = any(words[i] == words[i + 1] for i in range(0, len(words) - 1, length - 1))
    return like and max(len(list(run)) for _, run in groupby(words)) >= length


def _mostly_recur(units: Sequence[str], size: int) -> bool:
    """Whether fewer than half of the n-grams are distinct; nearly every distinct unit begins one."""
    count = len(units) - size + 1
    if len(set(units)) - size + 1 >= 0.5 * count:
        return False
    return len(set(zip(*(units[i:] for i in range(size)), strict=False))) < 0.5 * count


def _loops(answers: list[str]) -> bool:
    if len(answers) < 3:
        return False
    most = Counter(answers).most_common(1)[0]
    return most[1] >= 3 and len(most[0]) > 8


def _shouts(text: str) -> bool:
    """Mostly capitals, over at least 20 Latin letters."""
    if text != text.upper() and not _CAPITALS.search(text):
        return False
    letters = _LETTERS.findall(text)
    return len(letters) >= 20 and sum(map(str.isupper, letters)) > 0.9 * len(letters)


def _is_short(text: str) -> bool:
    return len(_SPACE_AND_MARKS.sub("", text)) < 2


def _echoes(conversation: Conversation) -> bool:
    """Whether an answer says nothing but the question before it."""
    pairs = zip(conversation.messages, conversation.messages[1:], strict=False)
    return any(
        a.role == "user"
        and b.role == "assistant"
        and len(a.content) > 8
        and _first_letter(a.content) == _first_letter(b.content)
        and _bare(a.content) == _bare(b.content)
        for a, b in pairs
    )


def _bare(text: str) -> str:
    return _SPACE_AND_MARKS.sub("", text).casefold()


def _first_letter(text: str) -> str:
    found = _LETTER.search(text)
    return found[0].casefold()[:1] if found else ""
