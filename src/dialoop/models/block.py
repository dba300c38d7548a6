"""The layers of a Llama, Mistral, Qwen2 or Qwen3 decoder for training on a CPU: two autograd functions each.

Between matrix products a processor with bf16 arithmetic is bound by memory, so what stands there takes as
few passes as torch's own kernels allow, and gradients are written out: nothing is widened to float32 and
kept, and but for one elementwise product nothing is computed twice. Linear layers may be LoRA's or held in
few bits; anything else, and the whole model runs through transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dialoop.models.attention import attend, attend_backward
from dialoop.models.products import Group, stack

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


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
        wide = torch.promote_types(x.dtype, torch.float32)
        squares = torch.linalg.vector_norm(x, dim=-1, dtype=wide).square_().div_(x.shape[-1])
        return scale_rows(x, squares, self.eps).mul_(self.weight), squares

    def backward(
        self, grad: Tensor, x: Tensor, normed: Tensor, squares: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The gradient of x, and those of `trained`. normed, squares: what `forward` gave."""
        along = (grad * normed).sum(-1, dtype=squares.dtype).div_(x.shape[-1])
        found = []
        if self.weight.requires_grad:
            plain = scale_rows(x, squares, self.eps)
            found = [plain.mul_(grad).sum(0, dtype=squares.dtype).to(self.weight.dtype)]
        dx = scale_rows(grad * self.weight, squares, self.eps)
        factor = along.div_(squares + self.eps).to(x.dtype)
        return dx.addcmul_(x, factor[:, None], value=-1), found


class _FeedForward(torch.autograd.Function):
    """x + down(silu(gate(norm(x))) * up(norm(x))) (Shazeer 2020, arXiv:2002.05202)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, *trained: Tensor) -> Tensor:
        normed, squares = layer.norm_mlp.forward(x)
        both, low = layer.gate_up.forward(normed)
        gate, up = both.chunk(2, 1)
        act = functional.silu(gate)
        out, low_down = layer.down.forward(act * up, x)
        if any(ctx.needs_input_grad):
            ctx.layer = layer
            ctx.save_for_backward(x, normed, squares, both, act, low, low_down)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layer: Layer = ctx.layer
        x, normed, squares, both, act, low, low_down = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        gate, up = both.chunk(2, 1)
        dinner, of_down = layer.down.backward(grad, act * up, low_down, wanted=True)
        assert dinner is not None
        dboth = torch.empty_like(both)
        dgate, dup = dboth.chunk(2, 1)
        torch.mul(dinner, act, out=dup)
        torch.ops.aten.silu_backward.grad_input(dinner.mul_(up), gate, grad_input=dgate)
        below = wanted or bool(layer.norm_mlp.trained)
        dnormed, of_in = layer.gate_up.backward(dboth, normed, low, wanted=below)
        dx, of_norm = _through(layer.norm_mlp, dnormed, x, normed, squares, grad)
        return dx if wanted else None, None, *of_norm, *of_in, *of_down


class _Attention(torch.autograd.Function):
    """x + out(attention(norm(x))), inside documents."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, given: Packed, *trained: Tensor) -> Tensor:
        normed, squares = layer.norm_attention.forward(x)
        qkv, low = layer.qkv.forward(normed)
        q, k, v = layer.heads(qkv)
        (q, *of_q), (k, *of_k) = _head_norm(layer.norm_q, q), _head_norm(layer.norm_k, k)
        q, k = given.turned(q), given.turned(k)
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
        attend_backward(dseen, kept, layer.scale, (dq, dk, dv))
        found = []
        for norm, dhead, of_head in ((layer.norm_q, dq, of_heads[:3]), (layer.norm_k, dk, of_heads[3:])):
            ctx.given.turn_back(dhead)
            found += _head_norm_backward(norm, dhead, of_head)
        below = wanted or bool(layer.norm_attention.trained)
        dnormed, of_in = layer.qkv.backward(dqkv, normed, low, wanted=below)
        dx, of_norm = _through(layer.norm_attention, dnormed, x, normed, squares, grad)
        return dx if wanted else None, None, None, *of_norm, *of_in, *found, *of_out


def _through(
    norm: Norm, dnormed: Tensor | None, x: Tensor, normed: Tensor, squares: Tensor, grad: Tensor
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradient of a half's input: through its norm, and past it."""
    if dnormed is None:
        return None, []
    dx, found = norm.backward(dnormed, x, normed, squares)
    return dx.add_(grad), found


def _head_norm(norm: Norm | None, x: Tensor) -> tuple[Tensor, ...]:
    """Qwen3's norm of each head, and what its gradient needs. x: (T, H, D)."""
    if norm is None:
        return (x,)
    rows = x.reshape(-1, x.shape[-1])
    normed, squares = norm.forward(rows)
    return normed.view(x.shape), rows, normed, squares


def _head_norm_backward(norm: Norm | None, grad: Tensor, kept: Sequence[Tensor]) -> list[Tensor]:
    """`grad`, (T, H, D), becomes that of the norm's input; those of its `trained`."""
    if norm is None:
        return []
    dx, found = norm.backward(grad.reshape(kept[0].shape), *kept)
    grad.copy_(dx.view(grad.shape))
    return found


@dataclass(frozen=True, slots=True)
class Packed:
    """What a packed row gives to every layer. cos, sin: (T, 1, D), the two halves of sin of opposite sign."""

    lengths: tuple[int, ...]
    cos: Tensor
    sin: Tensor

    def turned(self, x: Tensor) -> Tensor:
        """Rotary positions (Su et al. 2021, arXiv:2104.09864), half-split layout. x: (T, H, D)."""
        return (x * self.cos).addcmul_(_swapped(x), self.sin)

    def turn_back(self, grad: Tensor) -> None:
        """The gradient of what was `turned` becomes that of what it was before."""
        swapped = _swapped(grad)
        grad.mul_(self.cos).addcmul_(swapped, self.sin, value=-1)


def _swapped(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((second, first), -1)


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
    cos, sin = (each[0, :, None] for each in decoder.rotary_emb(embedded, positions))
    half = sin.shape[-1] // 2
    given = Packed(tuple(lengths), cos, torch.cat((-sin[..., :half], sin[..., half:]), -1))
    for layer in stack:
        embedded = layer.run(embedded, given)
    normed: Tensor = decoder.norm(embedded)
    return normed
