"""A lean decoder of the Llama and Qwen3 architectures, for training from packed rows.

Parameter names are those of transformers' `LlamaForCausalLM` and `Qwen3ForCausalLM`, so that a state
dict moves between the two unchanged; the parity test compares their logits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from dialoop.config import ArchitectureSettings
from dialoop.models.attention import packed_attention
from dialoop.models.fused import fused

HEAD_SIZE = 64
NORM_EPS = 1e-6


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    """x / rms(x) * weight over the last dimension, in fp32 inside (Zhang and Sennrich 2019)."""
    h = x.float()
    return (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + NORM_EPS)).to(x.dtype) * weight


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021), half-split layout. x: (T, H, D); cos, sin: (T, 1, D / 2)."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


rms_norm, rotate = fused(_normed), fused(_rotated)


@fused
def norm_rotate(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Qwen3's per-head norm, then the rotation."""
    return _rotated(_normed(x, weight), cos, sin)


@fused
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020)."""
    return functional.silu(gate) * up


class Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))


class Attention(nn.Module):
    def __init__(self, shape: ArchitectureSettings) -> None:
        super().__init__()
        q, kv = shape.heads * HEAD_SIZE, shape.kv_heads * HEAD_SIZE
        self.q_proj = nn.Linear(shape.hidden, q, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv, bias=False)
        self.o_proj = nn.Linear(q, shape.hidden, bias=False)
        if shape.family == "qwen3":
            self.q_norm, self.k_norm = Norm(HEAD_SIZE), Norm(HEAD_SIZE)
        self.qk_norm = shape.family == "qwen3"

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: Sequence[int]) -> Tensor:
        q, k, v = (p(x).view(x.shape[0], -1, HEAD_SIZE) for p in (self.q_proj, self.k_proj, self.v_proj))
        if self.qk_norm:
            q = norm_rotate(q, self.q_norm.weight, cos, sin)
            k = norm_rotate(k, self.k_norm.weight, cos, sin)
        else:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out = packed_attention(q, k, v, lengths, HEAD_SIZE**-0.5)
        return self.o_proj(out.reshape(x.shape[0], -1))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    def __init__(self, shape: ArchitectureSettings) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.down_proj = nn.Linear(shape.mlp, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, shape: ArchitectureSettings) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: Sequence[int]) -> Tensor:
        x = x + self.self_attn(rms_norm(x, self.input_layernorm.weight), cos, sin, lengths)
        return x + self.mlp(rms_norm(x, self.post_attention_layernorm.weight))  # type: ignore[no-any-return]


class Body(nn.Module):
    def __init__(self, shape: ArchitectureSettings, vocabulary: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.hidden)


class Decoder(nn.Module):
    """Tied embeddings; one packed row at a time.

    forward(token_ids: (T,) int64, lengths of the documents in it) -> hidden states (T, hidden), normed:
    what the output matrix `head` (vocabulary, hidden) turns into logits.
    """

    def __init__(self, shape: ArchitectureSettings, vocabulary: int, *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.model = Body(shape, vocabulary)
        self._angles: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        _initialise(self, seed)

    @property
    def head(self) -> Tensor:
        return self.model.embed_tokens.weight

    def forward(self, token_ids: Tensor, lengths: Sequence[int]) -> Tensor:
        x = self.model.embed_tokens(token_ids)
        cos, sin = self._rotary(tuple(lengths), token_ids.device)
        for block in self.model.layers:
            x = block(x, cos, sin, lengths)
        return rms_norm(x, self.model.norm.weight)

    def _rotary(self, lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        if lengths not in self._angles:
            positions = torch.cat([torch.arange(n, device=device) for n in lengths]).float()
            inverse = self.shape.rope_theta ** -(torch.arange(0, HEAD_SIZE, 2, device=device) / HEAD_SIZE)
            angles = (positions[:, None] * inverse)[:, None, :]
            self._angles = {lengths: (angles.cos(), angles.sin())}
        return self._angles[lengths]


@torch.no_grad()
def _initialise(decoder: Decoder, seed: int) -> None:
    """Normal(0, 0.02); the matrices that write to the residual stream are scaled by depth (GPT-2)."""
    generator = torch.Generator().manual_seed(seed)
    deep = 1 / math.sqrt(2 * decoder.shape.layers)
    for name, parameter in decoder.named_parameters():
        if parameter.ndim == 2:
            scale = deep if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            parameter.normal_(0, 0.02 * scale, generator=generator)


def write_decoder(decoder: Decoder, folder: Path, *, eos_id: int, pad_id: int) -> None:
    """config.json, generation_config.json and model.safetensors (bf16), as transformers reads them."""
    shape, vocabulary = decoder.shape, decoder.head.shape[0]
    family = {"qwen3": ("Qwen3ForCausalLM", "qwen3"), "llama": ("LlamaForCausalLM", "llama")}[shape.family]
    config = {
        "architectures": [family[0]],
        "model_type": family[1],
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": NORM_EPS,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "dtype": "bfloat16",
    }
    generation = {"eos_token_id": [eos_id, pad_id], "pad_token_id": pad_id}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2), encoding="utf-8")
    weights = {name: weight.detach().bfloat16().contiguous() for name, weight in decoder.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
