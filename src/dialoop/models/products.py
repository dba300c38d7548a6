"""The linear layers of a block as they are now, with what LoRA adds, and their gradients written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from dialoop.models.quantised import QuantisedLinear


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

    def dense(self, x: Tensor) -> Tensor:
        """x Wᵀ. x: (T, in)."""
        if isinstance(self.linear, nn.Linear):
            return x @ self.linear.weight.t()
        return self.linear.matrix.forward_product(x)

    def dense_backward(self, grad: Tensor) -> Tensor:
        """grad W. grad: (T, out)."""
        if isinstance(self.linear, nn.Linear):
            return grad @ self.linear.weight
        return self.linear.matrix.backward_product(grad)


def _dtype(linear: nn.Linear | QuantisedLinear) -> torch.dtype:
    return linear.weight.dtype if isinstance(linear, nn.Linear) else linear.dtype


@dataclass(frozen=True, slots=True)
class _LowRank:
    """What LoRA adds to all products of a group. a: (ranks, in); b: (outs, ranks), scaled, zero elsewhere."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """Products of one input, their outputs side by side. weight: theirs as one, where they lie so."""

    products: tuple[Product, ...]
    weight: Tensor | None
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
        if self.weight is not None:
            turned = self.weight.t()
            return x @ turned if onto is None else torch.addmm(onto, x, turned)
        parts = [product.dense(x) for product in self.products]
        y = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return y if onto is None else y.add_(onto)

    def backward(
        self, grad: Tensor, x: Tensor, low: Tensor | None, *, wanted: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """The gradient of x (where it is wanted), and those of `trained`. grad: (T, outs)."""
        up = None if self.low_rank is None else grad @ self.low_rank.b
        found = list(self._gradients(grad, x, low, up))
        if not wanted:
            return None, found
        dx = grad @ self.weight if self.weight is not None else self._dense_backward(grad)
        return (dx if up is None or self.low_rank is None else dx.addmm_(up, self.low_rank.a)), found

    def _dense_backward(self, grad: Tensor) -> Tensor:
        each = zip(self.products, self.columns, strict=True)
        parts = [product.dense_backward(grad[:, place]) for product, place in each]
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


def _side_by_side(products: Sequence[Product]) -> Tensor | None:
    """The matrices as one, (outs, in), where `stack` has put them so, or there is but one."""
    weights = [product.weight for product in products]
    if any(weight is None or not weight.is_contiguous() for weight in weights):
        return None
    whole = [weight.detach() for weight in weights if weight is not None]
    ends = [weight.data_ptr() + weight.nbytes for weight in whole]
    starts = [weight.data_ptr() for weight in whole[1:]]
    same = len({weight.untyped_storage().data_ptr() for weight in whole}) == 1
    if starts != ends[:-1] or not same:
        return None
    rows, columns = sum(map(len, whole)), whole[0].shape[1]
    return whole[0].as_strided((rows, columns), (columns, 1))


@torch.no_grad()
def stack(*modules: nn.Module) -> None:
    """Let the matrices of these linear layers lie side by side, so that a `Group` of them is one product."""
    found = [Product.of(module) for module in modules]
    weights = [None if product is None else product.weight for product in found]
    held = [weight for weight in weights if weight is not None]
    alike = len({(weight.shape[1], weight.dtype) for weight in held}) == 1
    if len(held) < len(modules) or not alike or any(weight.device.type != "cpu" for weight in held):
        return
    whole = torch.cat(held)
    for weight, place in zip(held, _places([len(weight) for weight in held]), strict=True):
        weight.data = whole[place]
