"""A decoder for answering: the Llama, Mistral, Qwen, Gemma and Phi-3 families on a CPU.

The layers of transformers' model with their weights packed, queries, keys and values in one product and the
gate beside its input. Whether it computes the same is to be probed before they are packed: `paged.agrees`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dialoop.errors import ModelError
from dialoop.models.adapters import Adapters
from dialoop.models.cache import Step
from dialoop.models.linear import Linear, fuse, pack
from dialoop.models.opening import PromptOpening
from dialoop.models.packed import altered_logits
from dialoop.types import Precision

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3"})
FIXED_ROPES = frozenset({"default", "linear", "llama3", "yarn"})
"""Kinds of rotary position embedding whose angles do not depend on the text's length."""


class LeanDecoder:
    """Next-token logits of one model. Raises ModelError for a model that it does not fit.

    precision: of the packed weights, None = they stay the model's own and are widened at each use.
    """

    def __init__(self, model: nn.Module, precision: Precision | None, adapters: Adapters) -> None:
        config: Any = model.config
        if not _fits(model):
            raise ModelError(f"{type(model).__name__}: no lean decoder")
        decoder: Any = model.get_decoder()  # type: ignore[operator]
        self.device = torch.device("cpu")
        self._config = config
        self._adapters = adapters
        self._embed: nn.Module = decoder.embed_tokens
        self._shape = _Shape.of(config, decoder.rotary_emb)
        self._rotary = decoder.rotary_emb
        self._turns = _turns(self._rotary, config.max_position_embeddings)
        self._layers = [_layer(layer, i, self._shape, precision) for i, layer in enumerate(decoder.layers)]
        self._norm = _norm(decoder.norm)
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        self._head = pack(head.weight, head.bias, precision)
        self._dtype = self._head.dtype

    @staticmethod
    def release(model: nn.Module) -> None:
        """Free the weights of the model's layers: the packed ones take their place."""
        for module in model.modules():
            if type(module) is nn.Linear:
                module.weight = nn.Parameter(torch.empty(0), requires_grad=False)

    @torch.inference_mode()
    def logits(self, token_ids: Tensor, step: Step, rows: Tensor) -> Tensor:
        """(len(rows), V) float32, after those rows of `token_ids`, (T,), the tokens of all spans."""
        return self.head(self._norm(self._states(token_ids, step)[rows]))

    @torch.inference_mode()
    def hidden(self, token_ids: Tensor, step: Step) -> Tensor:
        """(T, D): the last hidden states of the tokens of all spans."""
        return self._norm(self._states(token_ids, step))

    @torch.inference_mode()
    def head(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, V) float32."""
        return altered_logits(self._head(hidden).float(), self._config)

    def _states(self, token_ids: Tensor, step: Step) -> Tensor:
        """(T, D) after the last layer, before the norm."""
        x: Tensor = self._embed(token_ids).float()
        if step.longest > len(self._turns):
            self._turns = _turns(self._rotary, 2 * step.longest)
        turns = self._turns[step.positions]
        for layer in self._layers:
            self._run(layer, x, turns, step)
        return x

    def _run(self, layer: _Layer, x: Tensor, turns: Tensor, step: Step) -> None:
        """One layer; `x`, (T, D), becomes its output."""
        shape = self._shape
        heads = self._fused(layer.qkv, layer.before(x)).float().view(len(x), -1, shape.size)
        turning = heads[:, : -shape.key_heads]
        if layer.head_norm is not None:
            turning.copy_(layer.head_norm(turning))
        turning.view(torch.complex64)[..., : shape.turning // 2].mul_(turns)
        heads = heads.to(self._dtype)
        q, pairs = heads[:, : shape.heads], heads[:, shape.heads :]
        seen = step.attend(layer.index, q, pairs, scale=layer.scale, window=layer.window, cap=layer.cap)
        x += layer.after_attention(self._fused(layer.out, seen.reshape(len(x), -1)))
        gate, up = self._fused(layer.gate_up, layer.before_mlp(x)).chunk(2, dim=-1)
        x += layer.after_mlp(self._fused(layer.down, layer.act(gate).mul_(up)))

    def _fused(self, fused: _Fused, x: Tensor) -> Tensor:
        out = fused.linear(x)
        if self._adapters.active:
            for part in fused.parts:
                self._adapters.add_to(out[:, part.columns], part.path, x, part.pairs)
        return out


def _fits(model: nn.Module) -> bool:
    """Whether `model` is transformers' own of a known family on a CPU, its layers as they were made."""
    if not type(model).__module__.startswith("transformers.models."):
        return False
    config: Any = model.config
    plain = all(type(each) is nn.Linear for each in model.modules() if isinstance(each, nn.Linear))
    wrapped = any(hasattr(each, "base_layer") or _alters(each) for each in model.modules())
    ropes = getattr(config, "rope_parameters", None) or {}
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    known = config.model_type in FAMILIES and ropes.get("rope_type") in FIXED_ROPES
    return known and on_cpu and plain and not wrapped


def _alters(module: nn.Module) -> bool:
    """Whether it is a module of ours that these layers know nothing of; a prompt only embeds."""
    return type(module).__module__.startswith("dialoop.") and not isinstance(module, PromptOpening)


@dataclass(frozen=True, slots=True)
class _Shape:
    """heads of queries and of keys, their size, and how many of it turn with the position."""

    heads: int
    key_heads: int
    size: int
    turning: int

    @classmethod
    def of(cls, config: Any, rotary: Any) -> _Shape:
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(heads, config.num_key_value_heads, size, 2 * len(rotary.inv_freq))

    @property
    def split(self) -> list[int]:
        return [self.heads, self.key_heads, self.key_heads]


@dataclass(frozen=True, slots=True)
class _Part:
    """The layer at `path` fills these columns; pairs: its outputs were reordered so, None = they were not."""

    path: str
    columns: slice
    pairs: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _Fused:
    linear: Linear
    parts: tuple[_Part, ...]


@dataclass(frozen=True, slots=True)
class _Layer:
    index: int
    before: Callable[[Tensor], Tensor]
    qkv: _Fused
    head_norm: Callable[[Tensor], Tensor] | None
    out: _Fused
    after_attention: Callable[[Tensor], Tensor]
    before_mlp: Callable[[Tensor], Tensor]
    gate_up: _Fused
    act: Callable[[Tensor], Tensor]
    down: _Fused
    after_mlp: Callable[[Tensor], Tensor]
    scale: float
    window: int | None
    cap: float | None


class _Norm:
    """Root mean square norm over the last dimension. weight: broadcast over it."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        size = weight.shape[-1]
        self._weight = weight.detach().float() * size**0.5
        self._floor = torch.tensor((size * eps) ** 0.5)

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        normed: Tensor = (x * self._weight).div_(torch.hypot(length, self._floor))
        return normed


def _same(x: Tensor) -> Tensor:
    return x


def _norm(module: Any) -> _Norm:
    """Gemma's norms keep their weight less one."""
    plus = 1.0 if type(module).__name__.startswith("Gemma") else 0.0
    eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
    return _Norm(module.weight.detach().float() + plus, eps)


def _layer(layer: Any, index: int, shape: _Shape, precision: Precision | None) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    path = f"model.layers.{index}"
    second = hasattr(layer, "pre_feedforward_layernorm")
    before_mlp = layer.pre_feedforward_layernorm if second else layer.post_attention_layernorm
    return _Layer(
        index=index,
        before=_norm(layer.input_layernorm),
        qkv=_qkv(attention, f"{path}.self_attn", shape, precision),
        head_norm=_head_norm(attention, shape),
        out=_single(attention.o_proj, f"{path}.self_attn.o_proj", precision),
        after_attention=_norm(layer.post_attention_layernorm) if second else _same,
        before_mlp=_norm(before_mlp),
        gate_up=_gate_up(mlp, f"{path}.mlp", precision),
        act=getattr(mlp, "act_fn", None) or mlp.activation_fn,
        down=_single(mlp.down_proj, f"{path}.mlp.down_proj", precision),
        after_mlp=_norm(layer.post_feedforward_layernorm) if second else _same,
        scale=attention.scaling,
        window=_window(attention),
        cap=getattr(attention, "attn_logit_softcapping", None),
    )


def _window(attention: Any) -> int | None:
    own = getattr(attention, "sliding_window", None)
    kind = getattr(attention, "layer_type", None)
    return getattr(attention.config, "sliding_window", None) if kind is None and own is None else own


def _single(linear: nn.Linear, path: str, precision: Precision | None) -> _Fused:
    return _Fused(pack(linear.weight, linear.bias, precision), (_Part(path, slice(0, linear.out_features)),))


def _gate_up(mlp: Any, path: str, precision: Precision | None) -> _Fused:
    if hasattr(mlp, "gate_up_proj"):
        return _single(mlp.gate_up_proj, f"{path}.gate_up_proj", precision)
    size = mlp.gate_proj.out_features
    parts = (_Part(f"{path}.gate_proj", slice(0, size)), _Part(f"{path}.up_proj", slice(size, 2 * size)))
    return _Fused(fuse([mlp.gate_proj, mlp.up_proj], precision), parts)


def _qkv(attention: Any, path: str, shape: _Shape, precision: Precision | None) -> _Fused:
    """Queries and keys with the two numbers that turn together side by side: their product is the same."""
    ends = torch.tensor([0, *shape.split]).cumsum(0).mul(shape.size).tolist()
    queries, keys = (_pairs(shape, heads) for heads in (shape.heads, shape.key_heads))
    order = torch.cat([queries, keys + ends[1], torch.arange(ends[2], ends[3])])
    if hasattr(attention, "qkv_proj"):
        whole = _Part(f"{path}.qkv_proj", slice(0, ends[3]), order)
        return _Fused(fuse([attention.qkv_proj], precision, order), (whole,))
    parts = tuple(
        _Part(f"{path}.{name}_proj", slice(ends[i], ends[i + 1]), pairs)
        for i, (name, pairs) in enumerate((("q", queries), ("k", keys), ("v", None)))
    )
    linears = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Fused(fuse(linears, precision, order), parts)


def _pairs(shape: _Shape, heads: int) -> Tensor:
    """(heads * size,): in each head 0, half, 1, half + 1, ... of what turns, then what does not."""
    half = shape.turning // 2
    turning = torch.stack([torch.arange(half), torch.arange(half) + half], dim=1).flatten()
    one = torch.cat([turning, torch.arange(shape.turning, shape.size)])
    return (torch.arange(heads)[:, None] * shape.size + one).flatten()


def _head_norm(attention: Any, shape: _Shape) -> _Norm | None:
    """Of each head of queries and keys, where the architecture has it."""
    if getattr(attention, "q_norm", None) is None:
        return None
    order = _pairs(shape, 1)
    rows = [
        norm.weight.detach()[order].expand(heads, -1)
        for norm, heads in ((attention.q_norm, shape.heads), (attention.k_norm, shape.key_heads))
    ]
    return _Norm(torch.cat(rows), attention.q_norm.variance_epsilon)


def _turns(rotary: Any, positions: int) -> Tensor:
    """(positions, 1, turning / 2) complex: by how much each pair of numbers turns."""
    at = torch.arange(positions)[None]
    cos, sin = rotary(torch.zeros(1, dtype=torch.float32), at)
    half = cos.shape[-1] // 2
    return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())[:, None]
