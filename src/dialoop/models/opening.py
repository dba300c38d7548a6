"""What a soft prompt puts before every text: virtual tokens, whose ids come after the vocabulary's.

An opening takes the place of the model's input embedding. To the rest of the model, and to an engine, its
tokens are tokens like others: they take places of the context, and lie in the cache of keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What virtual tokens at `rows` of a forward are given, by layer: keys and values, (rows, H, D)."""

    rows: Tensor
    layers: Sequence[tuple[Tensor, Tensor]]

    def give(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """key, value: (1, H, T, D), as the layer computed them."""
        given = (x.to(key).transpose(0, 1)[None] for x in self.layers[layer])
        keys, values = (
            old.index_copy(2, self.rows, new) for old, new in zip((key, value), given, strict=True)
        )
        return keys, values


class Opening(nn.Module):
    """Embeds virtual tokens beside the vocabulary's.

    words: the model's own embedding.  count: of the virtual tokens.
    """

    def __init__(self, words: nn.Module, count: int) -> None:
        super().__init__()
        self.words = words
        self.count = count

    @property
    def weight(self) -> Tensor:
        """The vocabulary's, (V, D)."""
        weight: Tensor = self.words.weight  # type: ignore[assignment]
        return weight

    @property
    def flat(self) -> Tensor:
        """What is learnt, one row a virtual token."""
        raise NotImplementedError

    @property
    def ids(self) -> tuple[int, ...]:
        """The virtual tokens, in the order in which they open a text."""
        words: Any = self.words
        return tuple(range(words.num_embeddings, words.num_embeddings + self.count))

    def before(self, token_ids: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[int], Tensor]:
        """Documents opened: their ids, (T + n · documents,), their lengths, and where the real tokens lie."""
        ids = torch.tensor(self.ids, device=token_ids.device)
        parts = token_ids.split(list(lengths))  # type: ignore[no-untyped-call]
        opened = torch.cat([piece for part in parts for piece in (ids, part)])
        return opened, [n + self.count for n in lengths], (opened < self.ids[0]).nonzero().squeeze(1)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(...,) -> (..., D)."""
        virtual = token_ids >= self.ids[0]
        out: Tensor = self.words(token_ids.masked_fill(virtual, 0))
        return self._embed(out, virtual, token_ids[virtual] - self.ids[0])

    def _embed(self, out: Tensor, virtual: Tensor, numbers: Tensor) -> Tensor:
        """`out` with what the virtual tokens, of these numbers, are embedded as."""
        return out

    def past(self, token_ids: Tensor) -> Past | None:
        """The keys and values that the virtual ones among the tokens of one forward, (T,), are given."""
        return None


class PromptOpening(Opening):
    """Embeddings of virtual tokens. prompt: (n, D)."""

    def __init__(self, words: nn.Module, prompt: Tensor) -> None:
        super().__init__(words, len(prompt))
        self.prompt = Parameter(prompt)

    @property
    def flat(self) -> Tensor:
        return self.prompt

    def _embed(self, out: Tensor, virtual: Tensor, numbers: Tensor) -> Tensor:
        return out.masked_scatter(virtual[..., None], self.prompt[numbers].to(out.dtype))


class PrefixOpening(Opening):
    """Keys and values of virtual tokens, in every layer; what these tokens compute is seen by nobody.

    encoder: makes them of the tokens' numbers, (n,) -> (n, layers · 2 · heads · size), as peft's does.
    """

    def __init__(self, words: nn.Module, encoder: nn.Module, count: int, heads: int, size: int) -> None:
        super().__init__(words, count)
        self.encoder = encoder
        self._shape = (2, heads, size)

    @property
    def flat(self) -> Tensor:
        """(n, layers · 2 · heads · size)."""
        flat: Tensor = self.encoder(torch.arange(self.count, device=next(self.encoder.parameters()).device))
        return flat

    def past(self, token_ids: Tensor) -> Past | None:
        rows = (token_ids >= self.ids[0]).nonzero().squeeze(1)
        if not len(rows):
            return None
        layers = self.flat[token_ids[rows] - self.ids[0]].unflatten(1, (-1, *self._shape)).unbind(1)  # type: ignore[no-untyped-call]
        return Past(rows, tuple((layer[:, 0], layer[:, 1]) for layer in layers))


def opening_of(model: nn.Module) -> Opening | None:
    """What is put before every text that `model` reads."""
    find = getattr(model, "get_input_embeddings", None)
    embedding = None if find is None else find()
    return embedding if isinstance(embedding, Opening) else None


def opening_ids(model: nn.Module) -> tuple[int, ...]:
    """The virtual tokens that a text is to begin with; most models have none."""
    opening = opening_of(model)
    return () if opening is None else opening.ids
