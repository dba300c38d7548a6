"""Factors of several LoRA adapters side by side: rows of them all take two products a layer together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MOST_ROWS = 64
"""Of a step that is answered so: each row is multiplied by the factors of every adapter in the bank."""


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """What one linear layer gets: x Aᵀ Bᵀ. a: (rank, in); b: (out, rank), scaled already."""

    a: Tensor
    b: Tensor


class Bank:
    """Copies of these adapters' factors, made layer by layer as they are first needed.

    adapters: by name, their factors by the path of the layer.
    """

    def __init__(self, adapters: Mapping[str, Mapping[str, Factors]]) -> None:
        self.names = frozenset(adapters)
        self._adapters = adapters
        self._place = {name: i for i, name in enumerate(adapters)}
        self._layers: dict[str, tuple[Factors, tuple[int, ...]] | None] = {}
        self._owners: list[int] = []
        self._masks: dict[tuple[int, ...], Tensor] = {}

    def seat(self, rows: Sequence[tuple[slice, str]]) -> None:
        """Which adapter each row of the coming forward goes through, "" = none; `rows` follow each other."""
        self._owners = []
        for span, name in rows:
            self._owners += [self._place.get(name, -1)] * (span.stop - span.start)
        self._masks = {}

    def add_to(self, output: Tensor, path: str, x: Tensor, order: Tensor | None) -> None:
        """As `Adapters.add_to`."""
        if path not in self._layers:
            self._layers[path] = self._laid(path, order)
        layer = self._layers[path]
        if layer is None:
            return
        factors, columns = layer
        low = functional.linear(x.to(factors.a.dtype), factors.a)
        output += functional.linear(low.mul_(self._mask(columns, low)), factors.b)

    def _laid(self, path: str, order: Tensor | None) -> tuple[Factors, tuple[int, ...]] | None:
        """The factors, and to which adapter each of their columns belongs."""
        found = {self._place[name]: given[path] for name, given in self._adapters.items() if path in given}
        if not found:
            return None
        b = torch.cat([each.b for each in found.values()], dim=1)
        factors = Factors(torch.cat([each.a for each in found.values()]), b if order is None else b[order])
        return factors, tuple(place for place, each in found.items() for _ in range(len(each.a)))

    def _mask(self, columns: tuple[int, ...], like: Tensor) -> Tensor:
        """(T, columns): 1 where the column belongs to the row's adapter."""
        if columns not in self._masks:
            owners, own = (torch.tensor(x, device=like.device) for x in (self._owners, columns))
            self._masks[columns] = (owners[:, None] == own).to(like.dtype)
        return self._masks[columns]
