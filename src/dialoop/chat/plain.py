"""The tokenizer of a model that reads plain text, such as an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from dialoop.chat.directory import read_object
from dialoop.chat.encode import Encoder
from dialoop.errors import ModelError

_PROBE = "a"


class TextTokenizer:
    """Text -> ids, between the tokens that the tokenizer's post-processor puts around every text."""

    def __init__(self, directory: Path) -> None:
        """Raises ModelError where tokenizer.json is missing or of an unknown form."""
        spec = read_object(directory / "tokenizer.json")
        if spec is None:
            raise ModelError(f"{directory}: tokenizer.json is missing: save the tokenizer in its fast form")
        added = spec.setdefault("added_tokens", [])
        self._encoder = Encoder(spec, frozenset(t["content"] for t in added if t.get("special")))
        self.vocab_size: int = max(self._encoder.full.get_vocab(with_added_tokens=True).values()) + 1
        self._before, self._after = self._frame()

    def encode(self, text: str, *, framed: bool = True) -> list[int]:
        """Special tokens that `text` spells are plain text. No length is too long."""
        ids = self._encoder.encode(text, control=False)
        return self.frame(ids) if framed else ids

    def frame(self, first: Sequence[int], second: Sequence[int] | None = None) -> list[int]:
        """The ids of one text, or of two in one, with what the post-processor puts around and between."""
        if second is None:
            return [*self._before, *first, *self._after]
        before, between, after = self._pair_frame
        return [*before, *first, *between, *second, *after]

    @cached_property
    def _pair_frame(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        bare = self._encoder.full.encode(_PROBE, add_special_tokens=False).ids
        whole = self._encoder.full.encode(_PROBE, _PROBE).ids
        starts = [i for i in range(len(whole)) if whole[i : i + len(bare)] == bare]
        first, last = starts[0], starts[-1]
        return whole[:first], whole[first + len(bare) : last], whole[last + len(bare) :]

    def _frame(self) -> tuple[Sequence[int], Sequence[int]]:
        bare = self._encoder.full.encode(_PROBE, add_special_tokens=False).ids
        whole = self._encoder.full.encode(_PROBE).ids
        starts = (i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        start = next(starts, 0)
        return whole[:start], whole[start + len(bare) :]
