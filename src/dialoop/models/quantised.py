"""Frozen matrices in 8 or 4 bits, widened where they are used; gradients pass through to what is trained.

int8: a scale for each row, as in Dettmers et al. 2022 (arXiv:2208.07339) without its outliers. nf4: 16 levels
at the quantiles of a normal distribution and a scale for each 64 weights, Dettmers et al. 2023
(arXiv:2305.14314). No kernel is needed, so both train wherever torch runs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from dialoop.config import BasePrecision
from dialoop.models.layers import take_place

BLOCK = 64
"""Weights that share a scale in nf4."""
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
    1.0,
)  # fmt: skip
"""NF4's, from the appendix of its paper."""


class Matrix(nn.Module):
    """A matrix, (rows, columns), in few bits."""

    shape: tuple[int, int]
    codes: Tensor
    scales: Tensor

    def dense(self, dtype: torch.dtype) -> Tensor:
        """(rows, columns)."""
        raise NotImplementedError

    def rows(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """(...,) -> (..., columns)."""
        raise NotImplementedError

    def forward_product(self, x: Tensor) -> Tensor:
        """x: (..., columns) -> (..., rows)."""
        return x @ self.dense(x.dtype).t()

    def backward_product(self, grad: Tensor) -> Tensor:
        """grad: (..., rows) -> (..., columns)."""
        return grad @ self.dense(grad.dtype)


class Int8Matrix(Matrix):
    """codes: (rows, columns) int8; scales: (rows,) fp32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape = (weight.shape[0], weight.shape[1])
        scales = (weight.abs().amax(1).float() / 127).clamp_min(torch.finfo(torch.float32).tiny)
        self.register_buffer("codes", (weight / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8))
        self.register_buffer("scales", scales)

    def dense(self, dtype: torch.dtype) -> Tensor:
        return self.codes.to(dtype) * self.scales.to(dtype)[:, None]

    def rows(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        return self.codes[index].to(dtype) * self.scales[index].to(dtype)[..., None]

    def forward_product(self, x: Tensor) -> Tensor:
        return int8_product(x, self.codes, self.scales)

    def backward_product(self, grad: Tensor) -> Tensor:
        return int8_product_back(grad, self.codes, self.scales)


def int8_product(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """(..., columns) -> (..., rows). What comes out is scaled, rather than the weights."""
    return x @ codes.to(x.dtype).t() * scales.to(x.dtype)


def int8_product_back(grad: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """(..., rows) -> (..., columns)."""
    return grad * scales.to(grad.dtype) @ codes.to(grad.dtype)


class Nf4Matrix(Matrix):
    """codes: (rows · columns / 2,) uint8, two weights each; scales: (blocks,) fp32."""

    pairs: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape = (weight.shape[0], weight.shape[1])
        flat = functional.pad(weight.detach().float().flatten(), (0, -weight.numel() % BLOCK))
        blocks = flat.view(-1, BLOCK)
        scales = blocks.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
        levels = torch.tensor(LEVELS, device=weight.device)
        middles = (levels[1:] + levels[:-1]) / 2
        codes = torch.bucketize(blocks / scales[:, None], middles).to(torch.uint8).flatten()
        self.register_buffer("codes", codes[::2] << 4 | codes[1::2])
        self.register_buffer("scales", scales)
        # One look-up for a byte: the two weights that it holds.
        pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)
        self.register_buffer("pairs", pairs, persistent=False)

    def dense(self, dtype: torch.dtype) -> Tensor:
        values = functional.embedding(self.codes.int(), self.pairs.to(dtype))
        scaled = values.view(-1, BLOCK) * self.scales.to(dtype)[:, None]
        return scaled.view(-1)[: self.shape[0] * self.shape[1]].view(self.shape)

    def rows(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        return self.dense(dtype)[index]


MATRICES = {"int8": Int8Matrix, "nf4": Nf4Matrix}


class _Product(torch.autograd.Function):
    """Nothing is kept for the gradient but the matrix itself, which takes none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Matrix) -> Tensor:
        ctx.matrix = matrix
        return matrix.forward_product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.matrix.backward_product(grad), None


class QuantisedLinear(nn.Module):
    """Takes the place of a frozen linear layer. bias: as it was."""

    def __init__(self, matrix: Matrix, linear: Any) -> None:
        super().__init__()
        self.matrix, self.bias = matrix, linear.bias
        self.out_features, self.in_features = matrix.shape
        self._turned = isinstance(linear, Conv1D)
        self.dtype = linear.weight.dtype

    @property
    def weight(self) -> Tensor:
        """As the layer had it, made anew each time: peft reads it for DoRA."""
        dense = self.matrix.dense(self.dtype)
        return dense.t() if self._turned else dense

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        out: Tensor = _Product.apply(x, self.matrix)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias


class QuantisedEmbedding(nn.Module):
    """Takes the place of a frozen embedding."""

    def __init__(self, matrix: Matrix, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix, self.dtype = matrix, dtype
        self.num_embeddings, self.embedding_dim = matrix.shape

    @property
    def weight(self) -> Tensor:
        """(V, D), made anew each time."""
        return self.matrix.dense(self.dtype)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(...,) -> (..., D)."""
        return self.matrix.rows(token_ids, self.dtype)


def quantise_frozen(model: nn.Module, precision: BasePrecision, trained: Collection[Tensor]) -> None:
    """Hold every matrix of linear layers and embeddings that is not `trained` in fewer bits, tied ones once.

    Layers keep their hooks and submodules, such as adapters.
    """
    if precision == "loaded":
        return
    ids = {id(weight) for weight in trained}
    made: dict[int, Matrix] = {}
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) in (nn.Linear, nn.Embedding, Conv1D) and id(child.weight) not in ids
    ]
    for parent, name, child in places:
        weight: Any = child.weight
        if id(weight) not in made:
            turned = weight.detach().t() if isinstance(child, Conv1D) else weight.detach()
            made[id(weight)] = MATRICES[precision](turned)
        matrix = made[id(weight)]
        embeds = isinstance(child, nn.Embedding)
        taker = QuantisedEmbedding(matrix, weight.dtype) if embeds else QuantisedLinear(matrix, child)
        take_place(parent, name, child, taker)


def weight_bytes(model: nn.Module) -> int:
    """Memory of parameters and buffers, shared ones once."""
    tensors = {id(x): x for x in (*model.parameters(), *model.buffers())}
    return sum(x.nbytes for x in tensors.values())
