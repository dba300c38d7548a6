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

from dialoop.config import (
    BitFitMethod,
    BottleneckMethod,
    ContinueMethod,
    FreezeMethod,
    FullMethod,
    IA3Method,
    LoraMethod,
    MethodSettings,
    PrefixMethod,
    PromptMethod,
    PTuningV2Method,
)
from dialoop.types import ModelRef


class Attached(Protocol):
    """A model made ready for training by a method."""

    @property
    def model(self) -> nn.Module:
        """What transformers made, the method's modules in place; not a wrapper of it."""
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
    from dialoop.models.bitfit import BitFit
    from dialoop.models.bottleneck import BottleneckAdapters
    from dialoop.models.continued import Continued
    from dialoop.models.full import Freeze, Full
    from dialoop.models.ia3 import IA3
    from dialoop.models.lora import Lora
    from dialoop.models.soft_prompt import PrefixTuning, PromptTuning

    match settings:
        case FullMethod():
            return Full()
        case FreezeMethod():
            return Freeze(settings)
        case LoraMethod():
            return Lora(settings)
        case IA3Method():
            return IA3(settings)
        case BottleneckMethod():
            return BottleneckAdapters(settings)
        case BitFitMethod():
            return BitFit(settings)
        case PromptMethod():
            return PromptTuning(settings)
        case PrefixMethod() | PTuningV2Method():
            return PrefixTuning(settings)
        case ContinueMethod():
            return Continued()
