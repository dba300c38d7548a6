"""The layers of a Llama, Mistral, Qwen2 or Qwen3 decoder for training on a CPU: two autograd functions each.

Between matrix products a processor is bound by memory, so what stands there (`between`) takes few passes, and
gradients are written out: only weights of attention are computed twice, by kernels of our own. Linear layers
may be LoRA's or held in few bits; anything else, and the whole model runs through transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dialoop.models.attention import attend
from dialoop.models.between import Norm, Turns, gated, gated_backward
from dialoop.models.products import Group, stack

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


class _FeedForward(torch.autograd.Function):
    """x + down(silu(gate(norm(x))) * up(norm(x))) (Shazeer 2020, arXiv:2002.05202)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, *trained: Tensor) -> Tensor:
        normed, squares = layer.norm_mlp.forward(x)
        both, low = layer.gate_up.forward(normed)
        inner = gated(both)
        out, low_down = layer.down.forward(inner, x)
        if any(ctx.needs_input_grad):
            ctx.layer = layer
            ctx.save_for_backward(x, normed, squares, both, inner, low, low_down)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layer: Layer = ctx.layer
        x, normed, squares, both, inner, low, low_down = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        dinner, of_down = layer.down.backward(grad, inner, low_down, wanted=True)
        assert dinner is not None
        below = wanted or bool(layer.norm_mlp.trained)
        dboth = gated_backward(dinner, both)
        dnormed, of_in = layer.gate_up.backward(dboth, normed, low, wanted=below)
        dx, of_norm = _through(layer.norm_mlp, dnormed, x, squares, grad)
        return dx if wanted else None, None, *of_norm, *of_in, *of_down


class _Attention(torch.autograd.Function):
    """x + out(attention(norm(x))), inside documents."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, given: Packed, *trained: Tensor) -> Tensor:
        normed, squares = layer.norm_attention.forward(x)
        qkv, low = layer.qkv.forward(normed)
        q, k, v = layer.heads(qkv)
        (q, *of_q), (k, *of_k) = _head_norm(layer.norm_q, q), _head_norm(layer.norm_k, k)
        for heads in (q, k):
            given.turns.turn(heads)
        seen, kept = attend(q, k, v, given.lengths, layer.scale)
        seen = seen.view(len(x), -1)
        out, low_out = layer.out.forward(seen, x)
        if any(ctx.needs_input_grad):
            ctx.layer, ctx.given, ctx.kept = layer, given, kept
            ctx.save_for_backward(x, normed, squares, seen, low, low_out, *of_q, *of_k)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layer: Layer = ctx.layer
        x, normed, squares, seen, low, low_out, *of_heads = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        dseen, of_out = layer.out.backward(grad, seen, low_out, wanted=True)
        assert dseen is not None
        kept, ctx.kept = ctx.kept, None
        dqkv = dseen.new_empty(len(x), layer.qkv.columns[-1].stop)
        dq, dk, dv = layer.heads(dqkv)
        kept.backward(dseen, (dq, dk, dv))
        found = []
        for norm, dhead, of_head in ((layer.norm_q, dq, of_heads[:2]), (layer.norm_k, dk, of_heads[2:])):
            ctx.given.turns.turn_back(dhead)
            found += _head_norm_backward(norm, dhead, of_head)
        below = wanted or bool(layer.norm_attention.trained)
        dnormed, of_in = layer.qkv.backward(dqkv, normed, low, wanted=below)
        dx, of_norm = _through(layer.norm_attention, dnormed, x, squares, grad)
        return dx if wanted else None, None, None, *of_norm, *of_in, *found, *of_out


def _through(
    norm: Norm, dnormed: Tensor | None, x: Tensor, squares: Tensor, grad: Tensor
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradient of a half's input: through its norm, and past it."""
    return (None, []) if dnormed is None else norm.backward(dnormed, x, squares, grad)


def _head_norm(norm: Norm | None, x: Tensor) -> tuple[Tensor, ...]:
    """Qwen3's norm of each head, and what its gradient needs. x: (T, H, D)."""
    if norm is None:
        return (x,)
    rows = x.reshape(-1, x.shape[-1])
    normed, squares = norm.forward(rows)
    return normed.view(x.shape), rows, squares


def _head_norm_backward(norm: Norm | None, grad: Tensor, kept: Sequence[Tensor]) -> list[Tensor]:
    """`grad`, (T, H, D), becomes that of the norm's input; those of its `trained`."""
    if norm is None:
        return []
    dx, found = norm.backward(grad.reshape(kept[0].shape), *kept)
    grad.copy_(dx.view(grad.shape))
    return found


@dataclass(frozen=True, slots=True)
class Packed:
    """What a packed row gives to every layer."""

    lengths: tuple[int, ...]
    turns: Turns


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as it is right now: what is attached to its linear layers may come and go."""

    norm_attention: Norm
    qkv: Group
    norm_q: Norm | None
    norm_k: Norm | None
    out: Group
    norm_mlp: Norm
    gate_up: Group
    down: Group
    scale: float
    size: int

    @classmethod
    def of(cls, layer: Any) -> Layer | None:
        """None where a linear layer is more than `products.Product`."""
        attention, mlp = layer.self_attn, layer.mlp
        qkv = Group.of(attention.q_proj, attention.k_proj, attention.v_proj)
        out, gate_up, down = (
            Group.of(attention.o_proj), Group.of(mlp.gate_proj, mlp.up_proj), Group.of(mlp.down_proj)
        )  # fmt: skip
        if qkv is None or out is None or gate_up is None or down is None:
            return None
        norm_q, norm_k = (
            _norm(getattr(attention, name)) if hasattr(attention, name) else None
            for name in ("q_norm", "k_norm")
        )
        first, second = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        return cls(
            first, qkv, norm_q, norm_k, out, second, gate_up, down, attention.scaling, attention.head_dim
        )

    def heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(T, columns) as queries, keys and values, (T, H, D) each."""
        q, k, v = (qkv[:, place].view(len(qkv), -1, self.size) for place in self.qkv.columns)
        return q, k, v

    def run(self, x: Tensor, given: Packed) -> Tensor:
        """(T, D) -> (T, D)."""
        heads = [each for norm in (self.norm_q, self.norm_k) if norm is not None for each in norm.trained]
        trained = (*self.norm_attention.trained, *self.qkv.trained, *heads, *self.out.trained)
        x = _Attention.apply(x, self, given, *trained)  # type: ignore[no-untyped-call]
        trained = (*self.norm_mlp.trained, *self.gate_up.trained, *self.down.trained)
        out: Tensor = _FeedForward.apply(x, self, *trained)  # type: ignore[no-untyped-call]
        return out


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _plain(module: nn.Module) -> bool:
    """Whether nothing of a method hangs on a layer's or a norm's own forward."""
    return not module._forward_hooks and not module._forward_pre_hooks


def layers(model: nn.Module) -> list[Layer] | None:
    """Every layer of a model in memory on a CPU; None where these functions do not compute what it does."""
    config: Any = model.config
    known = config.model_type in FAMILIES and type(model).__module__.startswith("transformers.models.")
    if not known or config.hidden_act != "silu" or getattr(config, "sliding_window", None) is not None:
        return None
    if model.training and getattr(config, "attention_dropout", None):
        return None
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    stack = decoder.layers
    inner = (each for layer in stack for each in (layer, *layer.children()))
    if next(model.parameters()).device.type != "cpu" or not all(map(_plain, inner)):
        return None
    found = [Layer.of(layer) for layer in stack]
    whole = [each for each in found if each is not None]
    return whole if len(whole) == len(found) else None


def stack_weights(model: nn.Module) -> None:
    """Let what the layers multiply with one input lie side by side: one product in place of two or three."""
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    for layer in decoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        stack(attention.q_proj, attention.k_proj, attention.v_proj)
        stack(mlp.gate_proj, mlp.up_proj)


def states(model: nn.Module, embedded: Tensor, lengths: Sequence[int], stack: Sequence[Layer]) -> Tensor:
    """Last hidden states, normed, (T, D). embedded: (T, D); stack: the model's `layers`."""
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    cos, sin = (each[0] for each in decoder.rotary_emb(embedded, positions))
    given = Packed(tuple(lengths), Turns.of(cos, sin))
    for layer in stack:
        embedded = layer.run(embedded, given)
    normed: Tensor = decoder.norm(embedded)
    return normed
