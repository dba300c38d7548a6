"""Tuning methods: a frozen config plus `attach(model)`.

A method says which weights of a model are trained and how they are written; the loop knows no more. New
ones are plain objects with the same two members.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import nn
from torch.nn import Parameter

from dialoop.config import FullMethod, LoraMethod, MethodSettings
from dialoop.types import ModelRef


class Attached(Protocol):
    """A model made ready for training by a method."""

    @property
    def model(self) -> nn.Module:
        """The causal language model, adapters in place; what transformers made, not a wrapper of it."""
        ...

    @property
    def weights(self) -> Mapping[str, Parameter]:
        """What is trained, by name."""
        ...

    def save(self, folder: Path) -> ModelRef:
        """Write what was trained into the empty `folder`; the reference loads the tuned model."""
        ...


class Method(Protocol):
    """`attach` freezes what the method does not train and puts in what it adds, drawn from `seed`."""

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> Attached: ...


def method_of(settings: MethodSettings) -> Method:
    """The method that a recipe's `[method]` table names."""
    from dialoop.models.full import Full
    from dialoop.models.lora import Lora

    match settings:
        case LoraMethod():
            return Lora(settings)
        case FullMethod():
            return Full()
