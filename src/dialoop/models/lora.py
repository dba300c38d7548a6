"""LoRA (Hu et al. 2021) through peft, whose directory is the interchange format."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from dialoop.config import LoraMethod
from dialoop.errors import ModelError
from dialoop.types import ModelRef


@dataclass(frozen=True)
class Lora:
    """The method `lora`: the base is frozen, each target gets B A · alpha / rank added."""

    settings: LoraMethod

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> LoraModel:
        from peft import LoraConfig, get_peft_model

        if base.adapter is not None:
            raise ModelError(
                f"{base.name} is an adapter itself, and a new one would lose it: write it as a whole model "
                f"first (dialoop models export {base.name} --to DIR) and tune that"
            )
        chosen = self.settings
        config = LoraConfig(
            r=chosen.rank,
            lora_alpha=chosen.alpha,  # type: ignore[arg-type]
            lora_dropout=chosen.dropout,
            target_modules=chosen.targets if isinstance(chosen.targets, str) else list(chosen.targets),
            task_type="CAUSAL_LM",
            bias="none",
        )
        torch.manual_seed(seed)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", category=FutureWarning, message="`is_gradient_checkpointing`"
                )
                # bf16 adapters have fp32 masters in the optimizer; peft's own upcast is paid on every call.
                wrapped = get_peft_model(model, config, autocast_adapter_dtype=False)
        except ValueError as error:
            raise ModelError(
                f'method.targets {chosen.targets!r} does not fit {base.name}: {error}: use "all-linear"'
            ) from error
        return LoraModel(wrapped, base)


@dataclass(frozen=True)
class LoraModel:
    """A base with LoRA layers in place."""

    wrapped: Any
    base: ModelRef

    @property
    def model(self) -> nn.Module:
        inner: nn.Module = self.wrapped.get_base_model()
        return inner

    @property
    def weights(self) -> Mapping[str, Parameter]:
        """The A and B matrices."""
        return {name: weight for name, weight in self.wrapped.named_parameters() if weight.requires_grad}

    def save(self, folder: Path) -> ModelRef:
        """adapter_config.json and adapter_model.safetensors, as peft and vLLM read them."""
        self.wrapped.peft_config["default"].base_model_name_or_path = self.base.name
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Could not find a config file")
            self.wrapped.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        return ModelRef(self.base.name, self.base.base, folder)
