"""The layers of a lean decoder: what each multiplies by, and what lies between the products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dialoop.models.bank import Part
from dialoop.models.linear import Linear, Packing, fuse, pack
from dialoop.models.steps import Step


@dataclass(frozen=True, slots=True)
class Shape:
    """heads of queries and of keys, their size, and how many of it turn with the position."""

    heads: int
    key_heads: int
    size: int
    turning: int

    @classmethod
    def of(cls, config: Any, rotary: Any) -> Shape:
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(heads, config.num_key_value_heads, size, 2 * len(rotary.inv_freq))

    @property
    def split(self) -> list[int]:
        return [self.heads, self.key_heads, self.key_heads]


@dataclass(frozen=True, slots=True)
class Fused:
    linear: Linear
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    index: int
    before: Callable[[Tensor], Tensor]
    qkv: Fused
    head_norm: Callable[[Tensor], Tensor] | None
    out: Fused
    after_attention: Callable[[Tensor], Tensor]
    before_mlp: Callable[[Tensor], Tensor]
    gate_up: Fused
    act: Callable[[Tensor], Tensor]
    down: Fused
    after_mlp: Callable[[Tensor], Tensor]
    scale: float
    window: int | None
    cap: float | None


Product = Callable[[Fused, Tensor], Tensor]
"""(T, in) -> (T, out): that of a fused layer, with whatever is attached to it."""
Turn = Callable[[Tensor], None]
"""Turns (T, heads, size) in place, as the places of its rows want it (Su et al. 2021, arXiv:2104.09864)."""


def opened(layer: Layer, shape: Shape, x: Tensor, product: Product, turn: Turn) -> Tensor:
    """A layer before its attention: heads of queries, keys and values, (T, H + 2 * H_kv, size).

    x: (T, D), the stream.
    """
    out = product(layer.qkv, layer.before(x))
    heads = out.float().view(x.shape[0], -1, shape.size)
    turning = heads[:, : -shape.key_heads]
    if layer.head_norm is not None:
        turning.copy_(layer.head_norm(turning))
    turn(turning)
    return heads.to(out.dtype)


def attended(layer: Layer, shape: Shape, heads: Tensor, step: Step) -> Tensor:
    """What the heads that `opened` gave see, (T, H * size)."""
    q, pairs = heads[:, : shape.heads], heads[:, shape.heads :]
    seen = step.attend(layer.index, q, pairs, scale=layer.scale, window=layer.window, cap=layer.cap)
    return seen.reshape(len(heads), -1)


def closed(layer: Layer, x: Tensor, seen: Tensor, product: Product) -> None:
    """A layer after its attention: `x`, (T, D), becomes its output. seen: (T, H * size)."""
    x += layer.after_attention(product(layer.out, seen))
    gate, up = product(layer.gate_up, layer.before_mlp(x)).chunk(2, dim=-1)
    x += layer.after_mlp(product(layer.down, layer.act(gate).mul_(up)))


class Norm:
    """Root mean square norm over the last dimension. weight: broadcast over it.

    It is kept times the root of the size, and the least length that is divided by beside it.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        size = weight.shape[-1]
        self.weight = weight.detach().float() * size**0.5
        self.floor = (size * eps) ** 0.5
        self._floor = torch.tensor(self.floor)

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        normed: Tensor = (x * self.weight).div_(torch.hypot(length, self._floor))
        return normed


def _same(x: Tensor) -> Tensor:
    return x


def norm_of(module: Any) -> Norm:
    """Gemma's norms keep their weight less one."""
    plus = 1.0 if type(module).__name__.startswith("Gemma") else 0.0
    eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
    return Norm(module.weight.detach().float() + plus, eps)


def layer_of(layer: Any, index: int, shape: Shape, precision: Packing | None) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    path = f"model.layers.{index}"
    second = hasattr(layer, "pre_feedforward_layernorm")
    before_mlp = layer.pre_feedforward_layernorm if second else layer.post_attention_layernorm
    return Layer(
        index=index,
        before=norm_of(layer.input_layernorm),
        qkv=_qkv(attention, f"{path}.self_attn", shape, precision),
        head_norm=_head_norm(attention, shape),
        out=_single(attention.o_proj, f"{path}.self_attn.o_proj", precision),
        after_attention=norm_of(layer.post_attention_layernorm) if second else _same,
        before_mlp=norm_of(before_mlp),
        gate_up=_gate_up(mlp, f"{path}.mlp", precision),
        act=getattr(mlp, "act_fn", None) or mlp.activation_fn,
        down=_single(mlp.down_proj, f"{path}.mlp.down_proj", precision),
        after_mlp=norm_of(layer.post_feedforward_layernorm) if second else _same,
        scale=attention.scaling,
        window=_window(attention),
        cap=getattr(attention, "attn_logit_softcapping", None),
    )


def _window(attention: Any) -> int | None:
    own = getattr(attention, "sliding_window", None)
    kind = getattr(attention, "layer_type", None)
    return getattr(attention.config, "sliding_window", None) if kind is None and own is None else own


def _single(linear: nn.Linear, path: str, precision: Packing | None) -> Fused:
    return Fused(pack(linear.weight, linear.bias, precision), (Part(path, slice(0, linear.out_features)),))


def _gate_up(mlp: Any, path: str, precision: Packing | None) -> Fused:
    if hasattr(mlp, "gate_up_proj"):
        return _single(mlp.gate_up_proj, f"{path}.gate_up_proj", precision)
    size = mlp.gate_proj.out_features
    parts = (Part(f"{path}.gate_proj", slice(0, size)), Part(f"{path}.up_proj", slice(size, 2 * size)))
    return Fused(fuse([mlp.gate_proj, mlp.up_proj], precision), parts)


def _qkv(attention: Any, path: str, shape: Shape, precision: Packing | None) -> Fused:
    """Queries and keys with the two numbers that turn together side by side: their product is the same."""
    ends = torch.tensor([0, *shape.split]).cumsum(0).mul(shape.size).tolist()
    queries, keys = (_pairs(shape, heads) for heads in (shape.heads, shape.key_heads))
    order = torch.cat([queries, keys + ends[1], torch.arange(ends[2], ends[3])])
    if hasattr(attention, "qkv_proj"):
        whole = Part(f"{path}.qkv_proj", slice(0, ends[3]), order)
        return Fused(fuse([attention.qkv_proj], precision, order), (whole,))
    parts = tuple(
        Part(f"{path}.{name}_proj", slice(ends[i], ends[i + 1]), pairs)
        for i, (name, pairs) in enumerate((("q", queries), ("k", keys), ("v", None)))
    )
    linears = (attention.q_proj, attention.k_proj, attention.v_proj)
    return Fused(fuse(linears, precision, order), parts)


def _pairs(shape: Shape, heads: int) -> Tensor:
    """(heads * size,): in each head 0, half, 1, half + 1, ... of what turns, then what does not."""
    half = shape.turning // 2
    turning = torch.stack([torch.arange(half), torch.arange(half) + half], dim=1).flatten()
    one = torch.cat([turning, torch.arange(shape.turning, shape.size)])
    return (torch.arange(heads)[:, None] * shape.size + one).flatten()


def _head_norm(attention: Any, shape: Shape) -> Norm | None:
    """Of each head of queries and keys, where the architecture has it."""
    if getattr(attention, "q_norm", None) is None:
        return None
    order = _pairs(shape, 1)
    rows = [
        norm.weight.detach()[order].expand(heads, -1)
        for norm, heads in ((attention.q_norm, shape.heads), (attention.k_norm, shape.key_heads))
    ]
    return Norm(torch.cat(rows), attention.q_norm.variance_epsilon)
