"""Texts as vectors: pooled hidden states of decoders and of encoders."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dialoop.chat.plain import TextTokenizer
from dialoop.errors import ContextLengthError, RequestError
from dialoop.models.encoder import encode
from dialoop.models.packed import fill
from dialoop.models.paged import Cache, PagedBody, Span, Step
from dialoop.models.pooling import Embedding, Pooling, finish, pool, read_embedding

Text = str | Sequence[int]
Vectors = list[list[float]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How hidden states become vectors. dimensions: None = all."""

    pooling: Pooling
    normalize: bool = True
    dimensions: int | None = None

    def of(self, hidden: Tensor, lengths: Sequence[int]) -> Vectors:
        """One a text. hidden: (T, D), the texts one after the other."""
        found: Vectors = finish(pool(hidden, lengths, self.pooling), self.dimensions, self.normalize).tolist()
        return found


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


def embed_by_decoder(
    body: PagedBody, texts: Sequence[Sequence[int]], wanted: Wanted, step_tokens: int
) -> Generator[None, None, Vectors]:
    """Short texts side by side, a long one in chunks; yields after each forward."""
    found: dict[int, list[float]] = {}
    for batch in fill([len(text) for text in texts], _by_length(texts), step_tokens):
        ids = torch.tensor([token for i in batch for token in texts[i]], device=body.device)
        cache, slots = Cache(len(ids)), torch.arange(len(ids), device=body.device)
        lengths = [len(texts[i]) for i in batch]
        parts: list[Tensor] = []
        for spans in _steps(lengths, slots, step_tokens):
            size = sum(span.stop - span.start for span in spans)
            done = sum(map(len, parts))
            parts.append(body.hidden(ids[done : done + size], Step(cache, spans)))
            yield
        found |= zip(batch, wanted.of(torch.cat(parts), lengths), strict=True)
    return [found[i] for i in range(len(texts))]


def _steps(lengths: Sequence[int], slots: Tensor, step_tokens: int) -> list[list[Span]]:
    """The spans of each forward: of all texts, or of one after the other chunk of a single one."""
    if len(lengths) > 1:
        return [[Span(0, len(own), own) for own in slots.split(list(lengths))]]  # type: ignore[no-untyped-call]
    starts = range(0, len(slots), step_tokens)
    stops = [min(start + step_tokens, len(slots)) for start in starts]
    return [[Span(start, stop, slots[:stop])] for start, stop in zip(starts, stops, strict=True)]


def _by_length(texts: Sequence[Sequence[int]]) -> list[int]:
    return sorted(range(len(texts)), key=lambda i: len(texts[i]))


class EncoderRunning:
    """An encoder in memory. step_tokens: of a padded batch, one text at least."""

    def __init__(self, model: torch.nn.Module, *, step_tokens: int) -> None:
        self._model = model
        self._step_tokens = step_tokens

    def embed(
        self, texts: Sequence[Sequence[int]], owner: str, wanted: Wanted
    ) -> Generator[None, None, Vectors]:
        """The texts' vectors; yields after each forward. owner: "", an encoder has no adapters."""
        found: dict[int, list[float]] = {}
        for batch in self._batches(texts):
            hidden = encode(self._model, [texts[i] for i in batch])
            found |= zip(batch, wanted.of(hidden, [len(texts[i]) for i in batch]), strict=True)
            yield
        return [found[i] for i in range(len(texts))]

    def _batches(self, texts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Shortest first, so that a batch is as long as its last text."""
        batches: list[list[int]] = []
        for i in _by_length(texts):
            if not batches or (len(batches[-1]) + 1) * len(texts[i]) > self._step_tokens:
                batches.append([])
            batches[-1].append(i)
        return batches
