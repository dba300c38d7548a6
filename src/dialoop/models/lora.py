"""LoRA (Hu et al. 2021), with the scale of rsLoRA and the lengths of DoRA where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dialoop.config import LoraMethod
from dialoop.models.wrapped import WrappedModel, wrap
from dialoop.types import ModelRef


@dataclass(frozen=True)
class Lora:
    """The method `lora`: the base is frozen, each target gets B A · alpha / rank added."""

    settings: LoraMethod

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> WrappedModel:
        from peft import LoraConfig

        chosen = self.settings
        config = LoraConfig(
            r=chosen.rank,
            lora_alpha=chosen.alpha,  # type: ignore[arg-type]
            lora_dropout=chosen.dropout,
            target_modules=chosen.targets if isinstance(chosen.targets, str) else list(chosen.targets),
            use_rslora=chosen.rslora,
            use_dora=chosen.dora,
            bias="none",
        )
        what = f"method.targets {chosen.targets!r}"
        return wrap(model, config, base, seed=seed, what=what, mend='use "all-linear"')
