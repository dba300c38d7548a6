"""A decoder's layers by the kernels: one call for tokens that have lanes, else two a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dialoop.models.lean_layers import Layer, Norm, Shape, attended
from dialoop.models.native import kernels as native
from dialoop.models.steps import Step


class NativeLayers:
    """All layers of a decoder."""

    def __init__(self, layers: Sequence[Layer], shape: Shape, told: Sequence[native.Layer]) -> None:
        self._shape = shape
        self._layers = list(zip(layers, told, strict=True))
        self._stack = native.Stack(told)
        self._attending = shape.size % told[0].kernels.lanes == 0

    @classmethod
    def of(cls, layers: Sequence[Layer], shape: Shape, width: int) -> NativeLayers | None:
        """None where the kernels know nothing of such layers. width: of the stream."""
        told = [_told(layer, shape, width) for layer in layers]
        known = [each for each in told if each is not None]
        return cls(layers, shape, known) if len(known) == len(layers) else None

    def states(self, x: Tensor, turns: Tensor, step: Step) -> Tensor:
        """(T, D) after the last layer.

        x: (T, D), the embedded tokens; the place is used again.  turns: (T, 1, half) complex.
        """
        x, turns = x.contiguous(), turns.contiguous()
        at = step.in_lanes() if self._attending else None
        if at is not None:
            self._stack.decode(x, turns, *at)
            return x
        for layer, told in self._layers:
            heads = told.open(x, turns)
            told.close(x, attended(layer, self._shape, heads, step).contiguous())
        return x


def _told(layer: Layer, shape: Shape, width: int) -> native.Layer | None:
    linears = [each.linear for each in (layer.qkv, layer.out, layer.gate_up, layer.down)]
    products = [each for each in linears if isinstance(each, native.Weights)]
    tanh = _by_tanh(layer)
    if tanh is None or len(products) < len(linears):
        return None
    inner = products[2].outputs // 2
    sizes = native.Shape(width, shape.heads, shape.key_heads, shape.size, shape.turning, inner, tanh)
    by = (layer.before, layer.head_norm, layer.after_attention, layer.before_mlp, layer.after_mlp)
    norms = [(each.weight, each.floor) if isinstance(each, Norm) else None for each in by]
    return native.Layer(
        sizes, norms, products, scale=layer.scale, window=layer.window, cap=layer.cap
    )  # fmt: skip


def _by_tanh(layer: Layer) -> bool | None:
    """Whether the gate's activation is GELU's approximation by tanh, or SiLU; None = another."""
    at = torch.linspace(-8, 8, 257)
    with torch.inference_mode():
        got = layer.act(at.clone())
    if torch.allclose(got, functional.silu(at), atol=1e-6):
        return False
    return True if torch.allclose(got, functional.gelu(at, approximate="tanh"), atol=1e-6) else None
