"""Bottleneck adapters: after both halves of a layer, after its feed-forward, or beside that.

Houlsby et al. 2019 (arXiv:1902.00751), Pfeiffer et al. 2020 (arXiv:2005.00247), He et al. 2021
(arXiv:2110.04366). What an adapter adds enters before the layer's own dropout, residual sum and norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional

from dialoop.config import BottleneckMethod
from dialoop.models.adapter_files import BOTTLENECK, fill, read_settings, write_adapter
from dialoop.models.layers import describe_layers, out_features
from dialoop.models.wrapped import refuse_adapter
from dialoop.types import ModelRef

NAME = "bottleneck"
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}
PARALLEL_SCALE = 4.0
STRUCTURE = frozenset({"size", "placement", "activation", "scale"})
"""The settings that what is loaded depends on."""


@dataclass(frozen=True)
class BottleneckAdapters:
    """The method `bottleneck`: the base is frozen; the adapters add nothing at first."""

    settings: BottleneckMethod

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> BottleneckModel:
        refuse_adapter(base)
        model.requires_grad_(False)
        torch.manual_seed(seed)
        return BottleneckModel(model, base, self.settings, insert(model, self.settings))


class Bottleneck(nn.Module):
    """scale · up(act(down(x))); down: (size, width), up: (width, size), zero at first."""

    def __init__(self, width: int, settings: BottleneckMethod, like: Tensor) -> None:
        super().__init__()
        self.down = nn.Linear(width, settings.size)
        self.up = nn.Linear(settings.size, width)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.dropout = nn.Dropout(settings.dropout)
        self._act = ACTIVATIONS[settings.activation]
        self._scale = settings.scale or (PARALLEL_SCALE if settings.placement == "parallel" else 1.0)
        self.to(like)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        added: Tensor = self.up(self._act(self.down(self.dropout(x))))
        return added if self._scale == 1.0 else added * self._scale


class _After:
    """A hook: what a linear layer gives goes through the adapter too."""

    def __init__(self, adapter: nn.Module) -> None:
        self.adapter = adapter

    def __call__(self, linear: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        changed: Tensor = output + self.adapter(output)
        return changed


class _Beside:
    """Two hooks: the adapter reads the input of the feed-forward's first layer, its last one adds it."""

    def __init__(self, adapter: nn.Module) -> None:
        self.adapter = adapter
        self._input: Tensor | None = None

    def note(self, linear: nn.Module, inputs: tuple[Tensor]) -> None:
        self._input = inputs[0]

    def __call__(self, linear: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        assert self._input is not None
        x, self._input = self._input, None
        changed: Tensor = output + self.adapter(x)
        return changed


def insert(model: nn.Module, settings: BottleneckMethod) -> dict[str, Parameter]:
    """Put the adapters in as submodules of the linear layers that they follow; their weights, by path."""
    weights: dict[str, Parameter] = {}
    for layer in describe_layers(model):
        places = [layer.feedforward_out]
        if settings.placement == "houlsby":
            places.insert(0, layer.attention_out)
        for path in places:
            linear: Any = model.get_submodule(path)
            adapter = Bottleneck(out_features(linear), settings, linear.weight)
            linear.add_module(NAME, adapter)
            if settings.placement == "parallel":
                beside = _Beside(adapter)
                model.get_submodule(layer.feedforward_in).register_forward_pre_hook(beside.note)
                linear.register_forward_hook(beside)
            else:
                linear.register_forward_hook(_After(adapter))
            weights |= {f"{path}.{NAME}.{name}": weight for name, weight in adapter.named_parameters()}
    return weights


def load_bottleneck(model: nn.Module, folder: Path) -> nn.Module:
    """`model` with the adapters that lie in `folder`. Raises ModelError where they do not fit."""
    settings = BottleneckMethod.model_validate(read_settings(folder))
    fill(folder, insert(model, settings))
    return model


def continue_bottleneck(model: nn.Module, folder: Path, base: ModelRef) -> BottleneckModel:
    """The same, to be trained on."""
    settings = BottleneckMethod.model_validate(read_settings(folder))
    attached = BottleneckAdapters(settings).attach(model, base, seed=0)
    fill(folder, attached.weights)
    return attached


@dataclass(frozen=True)
class BottleneckModel:
    """A base with bottleneck adapters in place."""

    model: nn.Module
    base: ModelRef
    settings: BottleneckMethod
    weights: Mapping[str, Parameter]

    def save(self, folder: Path) -> ModelRef:
        """The two files of an adapter; the settings are those of the method, as far as loading needs them."""
        structure = self.settings.model_dump(include=set(STRUCTURE))
        return write_adapter(folder, BOTTLENECK, structure, self.weights, self.base)
