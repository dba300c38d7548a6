"""The linear layers of a block as they are now, with what LoRA adds, and their gradients written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from dialoop.models.native.training import by_bytes
from dialoop.models.quantised import Int8Matrix, Matrix, QuantisedLinear, int8_product, int8_product_back

MANY = 64
"""Rows from which putting a matrix in int8 in order for products in bytes is worth it."""


@dataclass(frozen=True, slots=True)
class Product:
    """x Wᵀ + bias + x Aᵀ Bᵀ · scale. a: (rank, in); b: (out, rank)."""

    linear: nn.Linear | QuantisedLinear
    a: Tensor | None = None
    b: Tensor | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, module: nn.Module) -> Product | None:
        """None for a layer that is more than this: another method's, DoRA, with dropout, merged."""
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        return cls(module) if isinstance(module, nn.Linear | QuantisedLinear) else cls._of_lora(module)

    @classmethod
    def _of_lora(cls, module: Any) -> Product | None:
        from peft.tuners.lora import Linear as LoraLinear

        if type(module) is not LoraLinear or module.merged or module.disable_adapters:
            return None
        inner, names = cls.of(module.base_layer), module.active_adapters
        if inner is None or len(names) != 1 or names[0] not in module.lora_A:
            return None
        (name,) = names
        dropped = getattr(module.lora_dropout[name], "p", 0.0)
        if name in module.lora_variant or module.lora_bias[name] or dropped:
            return None
        a: Any = module.lora_A[name].weight
        b: Any = module.lora_B[name].weight
        return cls(inner.linear, a, b, module.scaling[name]) if a.dtype == _dtype(inner.linear) else None

    @property
    def weight(self) -> Tensor | None:
        """(out, in); None where it is held in few bits."""
        return self.linear.weight if isinstance(self.linear, nn.Linear) else None

    @property
    def trained(self) -> list[Tensor]:
        """What takes a gradient, in the order in which `Group.backward` gives them."""
        given = (self.weight, self.linear.bias, self.a, self.b)
        return [x for x in given if x is not None and x.requires_grad]

    @property
    def matrix(self) -> _Dense | _Codes | Matrix:
        if isinstance(self.linear, nn.Linear):
            return _Dense(self.linear.weight)
        held = self.linear.matrix
        return _Codes(held.codes, held.scales) if isinstance(held, Int8Matrix) else held


@dataclass(frozen=True, slots=True)
class _Dense:
    """A matrix as it is, (out, in)."""

    weight: Tensor

    def forward_product(self, x: Tensor) -> Tensor:
        """(T, in) -> (T, out)."""
        return x @ self.weight.t()

    def backward_product(self, grad: Tensor) -> Tensor:
        """(T, out) -> (T, in)."""
        return grad @ self.weight


@dataclass(frozen=True, slots=True)
class _Codes:
    """A matrix in int8, as `quantised.Int8Matrix` holds it.

    In float32, where the processor sums products of bytes, inputs and gradients go in 8 bits too, each 64
    numbers of a row with a step of their own (after SwitchBack, Wortsman et al. 2023, arXiv:2304.13013).
    """

    codes: Tensor
    scales: Tensor

    def forward_product(self, x: Tensor) -> Tensor:
        if len(x) >= MANY and (own := by_bytes(x)) is not None:
            return own.multiply(x, self.codes, self.scales)
        return int8_product(x, self.codes, self.scales)

    def backward_product(self, grad: Tensor) -> Tensor:
        if len(grad) >= MANY and (own := by_bytes(grad)) is not None:
            return own.multiply(grad, self.codes, self.scales, back=True)
        return int8_product_back(grad, self.codes, self.scales)


def _dtype(linear: nn.Linear | QuantisedLinear) -> torch.dtype:
    return linear.weight.dtype if isinstance(linear, nn.Linear) else linear.dtype


@dataclass(frozen=True, slots=True)
class _LowRank:
    """What LoRA adds to all products of a group. a: (ranks, in); b: (outs, ranks), scaled, zero elsewhere."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """Products of one input, their outputs side by side. matrix: theirs as one, where they lie so."""

    products: tuple[Product, ...]
    matrix: _Dense | _Codes | Matrix | None
    low_rank: _LowRank | None

    @classmethod
    def of(cls, *modules: nn.Module) -> Group | None:
        """None where one of them is more than a `Product`."""
        products = [Product.of(module) for module in modules]
        found = tuple(each for each in products if each is not None)
        return cls(found, _side_by_side(found), _low_rank(found)) if len(found) == len(products) else None

    @property
    def trained(self) -> list[Tensor]:
        return [each for product in self.products for each in product.trained]

    @property
    def columns(self) -> list[slice]:
        """Where the output of each product stands."""
        return _places([product.linear.out_features for product in self.products])

    def forward(self, x: Tensor, onto: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The products of x, (T, in) -> (T, outs), added to `onto` if given; and x Aᵀ, (T, ranks)."""
        y = self._dense(x, onto)
        for product, place in zip(self.products, self.columns, strict=True):
            if product.linear.bias is not None:
                y[:, place] += product.linear.bias
        if self.low_rank is None:
            return y, None
        low = x @ self.low_rank.a.t()
        return y.addmm_(low, self.low_rank.b.t()), low

    def _dense(self, x: Tensor, onto: Tensor | None) -> Tensor:
        if isinstance(self.matrix, _Dense) and onto is not None:
            return torch.addmm(onto, x, self.matrix.weight.t())
        if self.matrix is not None:
            y = self.matrix.forward_product(x)
        else:
            y = torch.cat([product.matrix.forward_product(x) for product in self.products], 1)
        return y if onto is None else y.add_(onto)

    def backward(
        self, grad: Tensor, x: Tensor, low: Tensor | None, *, wanted: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """The gradient of x (where it is wanted), and those of `trained`. grad: (T, outs)."""
        up = None if self.low_rank is None else grad @ self.low_rank.b
        found = list(self._gradients(grad, x, low, up))
        if not wanted:
            return None, found
        dx = self._dense_backward(grad) if self.matrix is None else self.matrix.backward_product(grad)
        return (dx if up is None or self.low_rank is None else dx.addmm_(up, self.low_rank.a)), found

    def _dense_backward(self, grad: Tensor) -> Tensor:
        each = zip(self.products, self.columns, strict=True)
        parts = [product.matrix.backward_product(grad[:, place]) for product, place in each]
        dx = parts[0]
        for part in parts[1:]:
            dx += part
        return dx

    def _gradients(self, grad: Tensor, x: Tensor, low: Tensor | None, up: Tensor | None) -> Iterator[Tensor]:
        """low: x Aᵀ; up: grad B · scale."""
        dweight = grad.t() @ x if any(_trained(each.weight) for each in self.products) else None
        da = None if up is None else up.t() @ x
        db = None if low is None else low.t() @ grad
        ranks = _places([0 if product.a is None else len(product.a) for product in self.products])
        for product, place, rank in zip(self.products, self.columns, ranks, strict=True):
            if dweight is not None and _trained(product.weight):
                yield dweight[place]
            if _trained(product.linear.bias):
                yield grad[:, place].sum(0)
            if da is not None and _trained(product.a):
                yield da[rank]
            if db is not None and _trained(product.b):
                yield db[rank, place].t() * product.scale


def _trained(weight: Tensor | None) -> bool:
    return weight is not None and weight.requires_grad


def _places(sizes: Sequence[int]) -> list[slice]:
    return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


@torch.no_grad()
def _low_rank(products: Sequence[Product]) -> _LowRank | None:
    held = [product.a for product in products if product.a is not None]
    if not held:
        return None
    none = held[0].new_zeros(0)
    parts = [none.new_empty(p.linear.out_features, 0) if p.b is None else p.b * p.scale for p in products]
    return _LowRank(torch.cat(held), torch.block_diag(*parts))  # type: ignore[no-untyped-call]


def _side_by_side(products: Sequence[Product]) -> _Dense | _Codes | Matrix | None:
    """The matrices as one where `stack` has put them so, or there is but one."""
    if len(products) == 1:
        return products[0].matrix
    held = [_held(product) for product in products]
    if any(each is None for each in held):
        return None
    whole = [_as_one(parts) for parts in zip(*(each for each in held if each is not None), strict=True)]
    if any(part is None for part in whole):
        return None
    matrix, *scales = (part for part in whole if part is not None)
    return _Codes(matrix, *scales) if scales else _Dense(matrix)


def _held(product: Product) -> tuple[Tensor, ...] | None:
    """What can lie side by side: a matrix, or its codes and scales."""
    matrix = product.matrix
    if isinstance(matrix, _Dense):
        return (matrix.weight,)
    return (matrix.codes, matrix.scales) if isinstance(matrix, _Codes) else None


def _as_one(parts: Sequence[Tensor]) -> Tensor | None:
    """Tensors that follow each other in memory as one; parts: (rows, ...)."""
    whole = [part.detach() for part in parts]
    ends = [part.data_ptr() + part.nbytes for part in whole]
    starts = [part.data_ptr() for part in whole[1:]]
    same = len({part.untyped_storage().data_ptr() for part in whole}) == 1
    if starts != ends[:-1] or not same or not all(part.is_contiguous() for part in whole):
        return None
    return whole[0].as_strided((sum(map(len, whole)), *whole[0].shape[1:]), whole[0].stride())


@torch.no_grad()
def stack(*modules: nn.Module) -> None:
    """Let the matrices of these linear layers lie side by side, so that a `Group` of them is one product."""
    products = [Product.of(module) for module in modules]
    held = [None if product is None else _held(product) for product in products]
    found = [each for each in held if each is not None]
    alike = len({(len(each), each[0].shape[1], each[0].dtype) for each in found}) == 1
    if len(found) < len(held) or not alike or any(each[0].device.type != "cpu" for each in found):
        return
    for parts in zip(*found, strict=True):
        whole = torch.cat(parts)
        for part, place in zip(parts, _places([len(part) for part in parts]), strict=True):
            part.data = whole[place]
