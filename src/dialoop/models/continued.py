"""An adapter that is trained on: the run begins at what it holds, and what is written takes its place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dialoop.errors import ModelError
from dialoop.models.adapter_files import BITFIT, BOTTLENECK
from dialoop.models.bitfit import continue_bitfit
from dialoop.models.bottleneck import continue_bottleneck
from dialoop.models.load import check_adapter_config, fitting, wrapped_adapter
from dialoop.models.method import Attached
from dialoop.models.soft_prompt import SOFT_TYPES, continue_soft_prompt
from dialoop.models.wrapped import WrappedModel
from dialoop.types import ModelRef


@dataclass(frozen=True)
class Continued:
    """The method `continue`: the adapter of the base, of whatever kind, is what is trained."""

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> Attached:
        """model: the whole model below the adapter, which is put in here. Raises ModelError for a base
        without one.
        """
        folder = base.adapter
        if folder is None:
            raise ModelError(
                f"{base.name} is a whole model, and method.kind = 'continue' trains an adapter on: name an "
                f"adapter in base, or another method, such as lora"
            )
        config = check_adapter_config(folder)
        below = ModelRef(str(config.get("base_model_name_or_path") or base.name), base.base)
        torch.manual_seed(seed)
        with fitting(folder):
            match config["peft_type"]:
                case str(kind) if kind == BOTTLENECK:
                    return continue_bottleneck(model, folder, below)
                case str(kind) if kind == BITFIT:
                    return continue_bitfit(model, folder, below)
                case str(kind) if kind in SOFT_TYPES:
                    return continue_soft_prompt(model, folder, below)
                case _:
                    return WrappedModel(wrapped_adapter(model, folder, trainable=True), below)
