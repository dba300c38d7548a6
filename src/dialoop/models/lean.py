"""A decoder for answering: the Llama, Mistral, Qwen, Gemma and Phi-3 families on a CPU.

The layers of transformers' model with their weights packed, queries, keys and values in one product and the
gate beside its input. Whether it computes the same is to be probed before they are packed: `paged.agrees`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dialoop.errors import ModelError
from dialoop.models.adapters import Adapters
from dialoop.models.compiled import MOST_ROWS, Compiled, compile_layers
from dialoop.models.lean_layers import Fused, Shape, attended, closed, layer_of, norm_of, opened
from dialoop.models.linear import pack
from dialoop.models.native.layers import NativeLayers
from dialoop.models.opening import PromptOpening
from dialoop.models.packed import altered_logits
from dialoop.models.steps import Step
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
        self._shape = Shape.of(config, decoder.rotary_emb)
        self._rotary = decoder.rotary_emb
        self._turns = _turns(self._rotary, config.max_position_embeddings)
        self._layers = [layer_of(layer, i, self._shape, precision) for i, layer in enumerate(decoder.layers)]
        self._norm = norm_of(decoder.norm)
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        self._head = pack(head.weight, head.bias, precision)
        self._dtype = self._head.dtype
        self._native = NativeLayers.of(self._layers, self._shape, config.hidden_size)
        self._compiled: Compiled | None = None

    @property
    def by_kernels(self) -> bool:
        """Whether its layers go through kernels of our own."""
        return self._native is not None

    def compile(self, model: nn.Module) -> None:
        """Let steps of few rows go through compiled layers, made of the model's weights before `release`.

        Raises ModelError where this machine cannot compile.
        """
        decoder: Any = model.get_decoder()  # type: ignore[operator]
        self._compiled = compile_layers(decoder, self._shape, self._dtype)

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
        if self._compiled is not None and len(x) <= MOST_ROWS and not self._adapters.active:
            return self._compiled.states(x, turns, step)
        if self._native is not None and not self._adapters.active:
            return self._native.states(x, turns, step)
        turn = partial(_turn, turns)
        for layer in self._layers:
            heads = opened(layer, self._shape, x, self._fused, turn)
            closed(layer, x, attended(layer, self._shape, heads, step), self._fused)
        return x

    def _fused(self, fused: Fused, x: Tensor) -> Tensor:
        out = fused.linear(x)
        if self._adapters.active:
            self._adapters.add_to(out, fused.parts, x)
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


def _turns(rotary: Any, positions: int) -> Tensor:
    """(positions, 1, turning / 2) complex: by how much each pair of numbers turns."""
    at = torch.arange(positions)[None]
    cos, sin = rotary(torch.zeros(1, dtype=torch.float32), at)
    half = cos.shape[-1] // 2
    return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())[:, None]


def _turn(turns: Tensor, heads: Tensor) -> None:
    """A pair of numbers as one complex one. turns: (T, 1, turning / 2); heads: (T, heads, size)."""
    heads.view(torch.complex64)[..., : turns.shape[-1]].mul_(turns)
