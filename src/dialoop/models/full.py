"""Full fine-tuning: every weight is trained and the whole model is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn import Parameter

from dialoop.types import ModelRef

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
)


@dataclass(frozen=True)
class Full:
    """The method `full`."""

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> FullModel:
        for weight in model.parameters():
            weight.requires_grad_(True)
        return FullModel(model, base)


@dataclass(frozen=True)
class FullModel:
    """A model all of whose weights are trained."""

    model: nn.Module
    base: ModelRef

    @property
    def weights(self) -> Mapping[str, Parameter]:
        """Every weight once, tied ones too."""
        return dict(self.model.named_parameters())

    def save(self, folder: Path) -> ModelRef:
        """A Hugging Face directory with the base's tokenizer and template."""
        model: Any = self.model
        model.save_pretrained(folder)
        for name in TOKENIZER_FILES:
            if (self.base.base / name).is_file():
                shutil.copyfile(self.base.base / name, folder / name)
        return ModelRef(self.base.name, folder)
