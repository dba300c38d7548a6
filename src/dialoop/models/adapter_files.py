"""Adapters that peft has no method for, in the two files that it uses: their kind, settings and tensors.

`peft_type` begins with DIALOOP_, so that peft and all that build on it refuse them by name. Tensors are named
`base_model.model.<path in the model>`, as peft names its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from dialoop.errors import ModelError
from dialoop.models.weights import check_adapter, read_json
from dialoop.types import ModelRef

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
BOTTLENECK, BITFIT = "DIALOOP_BOTTLENECK", "DIALOOP_BITFIT"
OWN_TYPES = frozenset({BOTTLENECK, BITFIT})


def write_adapter(
    folder: Path, kind: str, settings: Mapping[str, Any], weights: Mapping[str, Tensor], base: ModelRef
) -> ModelRef:
    """The two files in `folder`. weights: by their paths in the model."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": kind, "base_model_name_or_path": base.name, **settings}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return ModelRef(base.name, base.base, folder)


def read_settings(folder: Path) -> dict[str, Any]:
    """What `write_adapter` was given as settings."""
    config = read_json(folder / CONFIG)
    return {k: v for k, v in config.items() if k not in ("peft_type", "base_model_name_or_path")}


def fill(folder: Path, wanted: Mapping[str, Parameter]) -> None:
    """Read the tensors of `folder` into the parameters `wanted`, by path; all of both, or ModelError."""
    held = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(check_adapter(folder)).items()}
    for name in sorted(wanted.keys() ^ held.keys()):
        trouble = "is missing" if name in wanted else "has no place in the model"
        raise ModelError(f"{folder}: tensor {name} {trouble}: use the base that it was trained on")
    for name, weight in wanted.items():
        if weight.shape != held[name].shape:
            raise ModelError(
                f"{folder}: tensor {name} is {tuple(held[name].shape)}, the model's {tuple(weight.shape)}: "
                f"use the base that it was trained on"
            )
        weight.data.copy_(held[name])
