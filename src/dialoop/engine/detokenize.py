"""From token ids to text, one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from dialoop.errors import ModelError

REPLACEMENT = "\ufffd"


class Vocabulary(Protocol):
    """What an answer needs of a tokenizer."""

    @property
    def stop_ids(self) -> frozenset[int]: ...

    def decode(self, ids: Sequence[int], /) -> str: ...

    def token_bytes(self, token_id: int, /) -> bytes: ...


class Detokenizer:
    """Turns tokens into text as they come and never shows half a character.

    decode: ids -> text of the whole, with U+FFFD where bytes are incomplete.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []  # the last whole piece, as context, and what came after it
        self._whole = 0  # how many of them are the context
        self._shown = 0  # characters of the decoded context and tail that were handed out

    def push(self, token: int) -> str:
        """The text that `token` completes; "" while a character is still incomplete."""
        self._ids.append(token)
        text = self._decode(self._ids)
        stable = text.rstrip(REPLACEMENT)
        piece = stable[self._shown :]
        self._shown = max(self._shown, len(stable))
        if text and len(stable) == len(text):
            self._forget()
        return piece

    def flush(self) -> str:
        """What was held back, with U+FFFD for characters that never became whole."""
        piece = self._decode(self._ids)[self._shown :]
        self._shown += len(piece)
        return piece

    def _forget(self) -> None:
        """Keep the newest whole piece only: decoders that strip a leading space need one before the next."""
        self._ids = self._ids[self._whole :]
        self._whole = len(self._ids)
        self._shown = len(self._decode(self._ids))


def bytes_of(token: int, vocabulary: Vocabulary) -> bytes:
    """b"" for the rows that a model's output matrix has beyond its vocabulary."""
    try:
        return vocabulary.token_bytes(token)
    except ModelError:
        return b""
