"""From texts to what a model embeds, and what is wanted of it; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dialoop.chat.plain import TextTokenizer
from dialoop.errors import ContextLengthError, RequestError
from dialoop.models.embedding import Embedding, Pooling, read_embedding

Text = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How hidden states become vectors. dimensions: None = all."""

    pooling: Pooling
    normalize: bool = True
    dimensions: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """What a model's directory says of embedding texts. context: tokens of a text; size: of a vector."""

    tokenizer: TextTokenizer
    embedding: Embedding
    context: int
    size: int

    @classmethod
    def load(cls, folder: Path, context: int, size: int) -> Reader:
        """Raises ModelError where the directory asks for more than pooling."""
        embedding = read_embedding(folder)
        return cls(TextTokenizer(folder), embedding, min(context, embedding.max_tokens or context), size)

    def ids(self, texts: Sequence[Text]) -> list[list[int]]:
        """Of each text. Raises RequestError or ContextLengthError naming it: nothing is cut off."""
        return [self._ids(text, f"input[{i}]") for i, text in enumerate(texts)]

    def _ids(self, text: Text, where: str) -> list[int]:
        if not text:
            raise RequestError(f"{where} is empty: give some text", param="input")
        ids = self.tokenizer.encode(text) if isinstance(text, str) else list(text)
        last = self.tokenizer.vocab_size - 1
        strange = next((token for token in ids if not 0 <= token <= last), None)
        if strange is not None:
            raise RequestError(
                f"{where}: token {strange} does not exist: the model's tokens are 0 to {last}", param="input"
            )
        if len(ids) > self.context:
            raise ContextLengthError(len(ids), self.context, what=where, param="input")
        return ids

    def wanted(self, normalize: bool, dimensions: int | None) -> Wanted:
        """Raises RequestError where a vector cannot be cut to `dimensions`."""
        cuts = range(1, self.size) if self.embedding.cuts is None else self.embedding.cuts
        if dimensions not in (None, self.size, *cuts):
            known = f"{self.size} or fewer" if self.embedding.cuts is None else _listed((*cuts, self.size))
            raise RequestError(
                f"dimensions = {dimensions}: this model's vectors have {known}: leave dimensions out",
                param="dimensions",
            )
        return Wanted(self.embedding.pooling, normalize, dimensions)


def _listed(sizes: Sequence[int]) -> str:
    return " or ".join(map(str, sorted(set(sizes))))
