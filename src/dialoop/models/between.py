"""What a layer in training on a CPU does between its products, and the gradients of that.

By kernels of our own, in one pass over memory each, where a C++ compiler has made them; else by as few of
torch's as will do. Nothing is widened to float32 and kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dialoop.models.native.training import training


def scale_rows(x: Tensor, variance: Tensor, eps: float) -> Tensor:
    """x / sqrt(variance + eps), row by row. x: (N, D); variance: (N,) fp32.

    torch's batch norm with rows for channels: fp32 factors on bf16 rows without a wide copy.
    """
    mean = torch.zeros_like(variance)
    return torch.batch_norm(x[None], None, None, mean, variance, False, 0.0, eps, False)[0]


@dataclass(frozen=True, slots=True)
class Norm:
    """Root mean square norm over the last dimension (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    weight: Tensor
    eps: float

    @property
    def trained(self) -> list[Tensor]:
        return [self.weight] if self.weight.requires_grad else []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, D). Its norm, and the mean squares, (N,)."""
        if (own := training(x, self.weight)) is not None:
            return own.norm(x, self.weight, self.eps)
        wide = torch.promote_types(x.dtype, torch.float32)
        squares = torch.linalg.vector_norm(x, dim=-1, dtype=wide).square_().div_(x.shape[-1])
        return scale_rows(x, squares, self.eps).mul_(self.weight), squares

    def backward(
        self, grad: Tensor, x: Tensor, squares: Tensor, past: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The gradient of x, with `past` added, and those of `trained`. squares: what `forward` gave."""
        trained = self.weight.requires_grad
        if (own := training(x, self.weight)) is not None:
            dx, dweight = own.norm_back(grad, x, self.weight, squares, self.eps, past, trained=trained)
        else:
            plain = scale_rows(x, squares, self.eps)
            along = (grad * plain * self.weight).sum(-1, dtype=squares.dtype).div_(x.shape[-1])
            dweight = plain.mul_(grad).sum(0, dtype=squares.dtype) if trained else None
            factor = along.div_(squares + self.eps).to(x.dtype)
            dx = scale_rows(grad * self.weight, squares, self.eps).addcmul_(x, factor[:, None], value=-1)
            dx = dx if past is None else dx.add_(past)
        return dx, [] if dweight is None else [dweight.to(self.weight.dtype)]


def gated(both: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020, arXiv:2002.05202). both: (N, 2 I), gate before up. Returns (N, I)."""
    gate, up = both.chunk(2, 1)
    own = training(both, gate)
    return functional.silu(gate).mul_(up) if own is None else own.gated(both)


def gated_backward(grad: Tensor, both: Tensor) -> Tensor:
    """The gradient of `both`. grad: (N, I)."""
    gate, up = both.chunk(2, 1)
    if (own := training(both, gate)) is not None:
        return own.gated_back(grad, both)
    dboth = torch.empty_like(both)
    dgate, dup = dboth.chunk(2, 1)
    torch.mul(grad, functional.silu(gate), out=dup)
    torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=dgate)
    return dboth


@dataclass(frozen=True, slots=True)
class Turns:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864), half-split layout.

    cos, sin: (T, 1, D), the two halves of sin of opposite sign.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, cos: Tensor, sin: Tensor) -> Turns:
        """From what transformers' models compute, (T, D) each."""
        half = sin.shape[-1] // 2
        return cls(cos[:, None], torch.cat((-sin[:, :half], sin[:, half:]), -1)[:, None])

    def turn(self, x: Tensor) -> None:
        """x: (T, H, D), in place."""
        self._turn(x, back=False)

    def turn_back(self, grad: Tensor) -> None:
        """The gradient of what was turned becomes that of what it was before."""
        self._turn(grad, back=True)

    def _turn(self, x: Tensor, *, back: bool) -> None:
        first, second = x.chunk(2, -1)
        if (own := training(x, first, self.cos)) is not None:
            own.turn(x, self.cos, self.sin, back=back)
        else:
            swapped = torch.cat((second, first), -1)
            x.mul_(self.cos).addcmul_(swapped, self.sin, value=-1 if back else 1)
