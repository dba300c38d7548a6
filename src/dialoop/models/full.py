"""Fine-tuning of the model's own weights, all of them or those above the first layers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn import Parameter

from dialoop.config import FreezeMethod
from dialoop.errors import ModelError
from dialoop.models.layers import layers_of
from dialoop.models.load import refuse_unmergeable
from dialoop.types import ModelRef

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
)
MEND = 'train it on with method = { kind = "continue" }'


@dataclass(frozen=True)
class Full:
    """The method `full`."""

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> WholeModel:
        refuse_unmergeable(base, MEND)
        for weight in model.parameters():
            weight.requires_grad_(True)
        return WholeModel(model, base)


@dataclass(frozen=True)
class Freeze:
    """The method `freeze`: autograd does not go below the first layer that is trained."""

    settings: FreezeMethod

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> WholeModel:
        refuse_unmergeable(base, MEND)
        path, stack = layers_of(model)
        count = self.settings.layers
        if count > len(stack):
            raise ModelError(f"method.layers {count}: {base.name} has {len(stack)} layers: freeze fewer")
        below = {f"{path}.{i}" for i in range(count)}
        for name, module in model.named_modules():
            if name in below or isinstance(module, nn.Embedding) or "embed" in name.rpartition(".")[2]:
                module.requires_grad_(False)
        return WholeModel(model, base)


@dataclass(frozen=True)
class WholeModel:
    """A model some or all of whose own weights are trained."""

    model: nn.Module
    base: ModelRef

    @property
    def weights(self) -> Mapping[str, Parameter]:
        """Every trained weight once, tied ones too."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def save(self, folder: Path) -> ModelRef:
        """A Hugging Face directory with the base's tokenizer and template."""
        model: Any = self.model
        model.save_pretrained(folder)
        for name in TOKENIZER_FILES:
            if (self.base.base / name).is_file():
                shutil.copyfile(self.base.base / name, folder / name)
        return ModelRef(self.base.name, folder)
