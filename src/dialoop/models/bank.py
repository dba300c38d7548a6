"""Factors of several LoRA adapters side by side: rows of them all take the same products together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MOST_PLACES = 2**16
"""Rows of a step times ranks of a bank: each row is multiplied by the factors of every adapter in it."""
MOST_OUTPUTS = 4096
"""Of layers whose second factors lie in one matrix, zeros between them: a call costs more than the zeros."""


@dataclass(frozen=True, slots=True)
class Part:
    """The layer at `path` fills these columns; pairs: its outputs were reordered so, None = they were not."""

    path: str
    columns: slice
    pairs: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """What one linear layer gets: x Aᵀ Bᵀ. a: (rank, in); b: (out, rank), scaled already."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Stack:
    """Of layers with one input. a: (ranks, in).  owners: of each rank the adapter's place.

    ups: (columns of the output, which of the ranks, second factors between them).
    """

    a: Tensor
    owners: tuple[int, ...]
    ups: tuple[tuple[slice, slice, Tensor], ...]


def add_product(place: Tensor, low: Tensor, b: Tensor) -> None:
    """place += low bᵀ, in one pass where the types allow it. place: (T, out), a view of an output."""
    if place.dtype == low.dtype and place.ndim == 2:
        place.addmm_(low, b.t())
    else:
        place += functional.linear(low, b).view(place.shape)


class Bank:
    """Copies of these adapters' factors, made layer by layer as they are first needed.

    adapters: by name, their factors by the path of the layer.
    """

    def __init__(self, adapters: Mapping[str, Mapping[str, Factors]]) -> None:
        self.names = frozenset(adapters)
        self._adapters = adapters
        self._place = {name: i for i, name in enumerate(adapters)}
        self._stacks: dict[str, _Stack | None] = {}
        self._owners: list[int] = []
        self._masks: dict[tuple[int, ...], Tensor] = {}

    def seat(self, rows: Sequence[tuple[slice, str]]) -> None:
        """Which adapter each row of the coming forward goes through, "" = none; `rows` follow each other."""
        self._owners = []
        for span, name in rows:
            self._owners += [self._place.get(name, -1)] * (span.stop - span.start)
        self._masks = {}

    def add_to(self, output: Tensor, parts: Sequence[Part], x: Tensor) -> None:
        """As `Adapters.add_to`."""
        first = parts[0].path
        if first not in self._stacks:
            self._stacks[first] = self._laid(parts)
        stack = self._stacks[first]
        if stack is None:
            return
        low = functional.linear(x.reshape(-1, x.shape[-1]).to(stack.a.dtype), stack.a)
        low.mul_(self._mask(stack.owners, low))
        for columns, given, b in stack.ups:
            add_product(output[..., columns], low[:, given], b)

    def _laid(self, parts: Sequence[Part]) -> _Stack | None:
        """None where no adapter changes these layers."""
        found = [
            (part, {self._place[name]: given[part.path] for name, given in self._adapters.items()
                    if part.path in given})
            for part in parts
        ]  # fmt: skip
        found = [(part, factors) for part, factors in found if factors]
        if not found:
            return None
        every = [each for _, factors in found for each in factors.items()]
        owners = tuple(place for place, each in every for _ in range(len(each.a)))
        ups, start = [], 0
        for part, factors in found:
            b = torch.cat([each.b for each in factors.values()], dim=1)
            ups.append(
                (part.columns, slice(start, start + b.shape[1]), b if part.pairs is None else b[part.pairs])
            )
            start += b.shape[1]
        if len(ups) > 1 and ups[-1][0].stop - ups[0][0].start <= MOST_OUTPUTS:
            ups = [_joined(ups)]
        return _Stack(torch.cat([each.a for _, each in every]), owners, tuple(ups))

    def _mask(self, owners: tuple[int, ...], like: Tensor) -> Tensor:
        """(T, columns): 1 where the column belongs to the row's adapter."""
        if owners not in self._masks:
            rows, own = (torch.tensor(x, device=like.device) for x in (self._owners, owners))
            self._masks[owners] = (rows[:, None] == own).to(like.dtype)
        return self._masks[owners]


def _joined(ups: Sequence[tuple[slice, slice, Tensor]]) -> tuple[slice, slice, Tensor]:
    """One matrix for neighbouring columns."""
    first, last = ups[0][0].start, ups[-1][0].stop
    whole = ups[0][2].new_zeros(last - first, ups[-1][1].stop)
    for columns, given, b in ups:
        whole[columns.start - first : columns.stop - first, given] = b
    return slice(first, last), slice(0, whole.shape[1]), whole
