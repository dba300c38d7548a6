"""Where the layers of a transformers model lie, and what each is made of, whatever its architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from dialoop.errors import ModelError

LINEAR = (nn.Linear, Conv1D)
"""Conv1D is what GPT-2's kind calls a linear layer; its weight is (in, out)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Paths of the linear layers that a layer's halves begin and end with."""

    attention_out: str
    feedforward_in: str
    feedforward_out: str


def layers_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The path of the model's stack of layers, and the stack. Raises ModelError where there is none."""
    config: Any = model.config
    count = int(config.get_text_config().num_hidden_layers)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(
        f"{type(model).__name__} has no stack of {count} layers: use a method that names its layers, such as "
        f"lora with method.targets"
    )


def describe_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Every layer, from the input up. Raises ModelError where a layer is not attention, then feed-forward."""
    path, stack = layers_of(model)
    config: Any = model.config
    width = int(config.get_text_config().hidden_size)
    return tuple(_describe(f"{path}.{i}", layer, width) for i, layer in enumerate(stack))


def _describe(path: str, layer: nn.Module, width: int) -> Layer:
    """Modules are registered in the order in which they run: the last linear layer of a half ends it."""
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, LINEAR)}
    attention = [name for name in linears if "attn" in name or "attention" in name]
    feedforward = [name for name in linears if name not in attention]
    ends = [names[-1] for names in (attention, feedforward) if names]
    if len(ends) != 2 or any(out_features(linears[name]) != width for name in ends):
        raise ModelError(
            f"{path} is not attention and then one feed-forward of width {width}: bottleneck adapters have "
            f"no place there, use another method, such as lora"
        )
    return Layer(*(f"{path}.{name}" for name in (ends[0], feedforward[0], ends[1])))


def out_features(linear: nn.Module) -> int:
    """Of a linear layer of either kind."""
    return int(linear.nf if isinstance(linear, Conv1D) else linear.out_features)  # type: ignore[arg-type]


def take_place(parent: nn.Module, name: str, old: nn.Module, new: nn.Module) -> None:
    """Put `new` where `old` was, with its hooks and submodules."""
    new._forward_hooks, new._forward_pre_hooks = old._forward_hooks, old._forward_pre_hooks
    for kept, module in old.named_children():
        new.add_module(kept, module)
    new.train(old.training)
    setattr(parent, name, new)
