"""Texts as vectors: pooled hidden states of decoders and of encoders."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from dialoop.engine.reader import Wanted
from dialoop.models.cache import Cache, Span
from dialoop.models.encoder import encode
from dialoop.models.packed import fill
from dialoop.models.paged import Body
from dialoop.models.pooling import finish, pool
from dialoop.models.steps import SpanStep

Vectors = list[list[float]]


def vectors_of(hidden: Tensor, lengths: Sequence[int], wanted: Wanted) -> Vectors:
    """One a text. hidden: (T, D), the texts one after the other."""
    pooled = pool(hidden, lengths, wanted.pooling)
    found: Vectors = finish(pooled, wanted.dimensions, wanted.normalize).tolist()
    return found


def embed_by_decoder(
    body: Body, texts: Sequence[Sequence[int]], wanted: Wanted, step_tokens: int
) -> Generator[None, None, Vectors]:
    """Short texts side by side, a long one in chunks; yields after each forward."""
    found: dict[int, list[float]] = {}
    for batch in fill([len(text) for text in texts], _by_length(texts), step_tokens):
        ids = torch.tensor([token for i in batch for token in texts[i]], device=body.device)
        cache, lengths = Cache(len(ids)), [len(texts[i]) for i in batch]
        parts: list[Tensor] = []
        for spans in _steps(lengths, step_tokens):
            size = sum(span.stop - span.start for span in spans)
            done = sum(map(len, parts))
            parts.append(body.hidden(ids[done : done + size], SpanStep(cache, spans, body.device)))
            yield
        found |= zip(batch, vectors_of(torch.cat(parts), lengths, wanted), strict=True)
    return [found[i] for i in range(len(texts))]


def _steps(lengths: Sequence[int], step_tokens: int) -> list[list[Span]]:
    """The spans of each forward: of all texts, or of one after the other chunk of a single one."""
    if len(lengths) > 1:
        ends = accumulate(lengths)
        return [[Span(0, n, range(end - n, end)) for n, end in zip(lengths, ends, strict=True)]]
    (length,) = lengths
    starts = range(0, length, step_tokens)
    return [[Span(start, min(start + step_tokens, length), range(length))] for start in starts]


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
            found |= zip(batch, vectors_of(hidden, [len(texts[i]) for i in batch], wanted), strict=True)
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
