"""Histories and answers as texts of one kind of row: what a scorer reads."""

from __future__ import annotations

from functools import lru_cache

from dialoop.chat.plain import TextTokenizer
from dialoop.types import Conversation

ROLES_ASIDE = ("system", "developer", "tool")


def history_text(history: Conversation) -> str:
    """What a scorer reads of a history: what was said, a line a turn."""
    return "\n".join(m.content for m in history.messages if m.role not in ROLES_ASIDE)


class PairTexts:
    """Histories and answers as token ids, put together for a scorer."""

    def __init__(self, tokenizer: TextTokenizer, max_length: int) -> None:
        self._tokenizer, self._room = tokenizer, max_length - len(tokenizer.frame([], []))
        self._spell = lru_cache(200_000)(lambda text: tuple(tokenizer.encode(text, framed=False)))
        self._line = tuple(tokenizer.encode("\n", framed=False))

    def ids(self, history: str, answer: str) -> tuple[list[int], bool]:
        """Of both, the history cut at its beginning and a long answer at its end; and whether any was."""
        first, second = (*self._spell(history), *self._line), self._spell(answer)
        kept = second[: max(self._room // 2, self._room - len(first))]
        room = self._room - len(kept)
        return self._tokenizer.frame(first[max(len(first) - room, 0) :], kept), (
            len(kept) < len(second) or room < len(first)
        )

    def length(self, history: str, answer: str) -> int:
        """Tokens of both before anything is cut."""
        whole = (*self._spell(history), *self._line)
        return len(self._tokenizer.frame(whole, self._spell(answer)))
