"""Methods whose layers are peft's, and whose directory is therefore the field's interchange format."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter
from transformers.pytorch_utils import Conv1D

from dialoop.errors import ModelError
from dialoop.types import ModelRef


def wrap(model: nn.Module, config: Any, base: ModelRef, *, seed: int, what: str, mend: str) -> WrappedModel:
    """`model` with the layers of a peft config in place, their first weights drawn from `seed`.

    Raises ModelError where the config does not fit: `what` came, `mend` is what mends it.
    """
    from peft import get_peft_model

    refuse_adapter(base)
    config.task_type = "CAUSAL_LM" if hasattr(model, "prepare_inputs_for_generation") else None
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())
    torch.manual_seed(seed)
    try:
        with quiet():
            # bf16 adapters have fp32 masters in the optimizer; peft's own upcast is paid on every call.
            return WrappedModel(get_peft_model(model, config, autocast_adapter_dtype=False), base)
    except ValueError as error:
        raise ModelError(f"{what} does not fit {base.name}: {error}: {mend}") from error


def refuse_adapter(base: ModelRef) -> None:
    """Raises ModelError for a base that is an adapter: a second one would be written without the first."""
    if base.adapter is not None:
        raise ModelError(
            f"{base.name} is an adapter itself, and a new one would lose it: train it on with method = "
            f'{{ kind = "continue" }}, or write it as a whole model first (dialoop models export {base.name} '
            f"--to DIR) and tune that"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """peft's calls of what transformers has deprecated are not the user's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message="`is_gradient_checkpointing`")
        yield


@dataclass(frozen=True)
class WrappedModel:
    """A base with peft's layers in place."""

    wrapped: Any
    base: ModelRef

    @property
    def model(self) -> nn.Module:
        inner: nn.Module = self.wrapped.get_base_model()
        return inner

    @property
    def weights(self) -> Mapping[str, Parameter]:
        """What peft added."""
        return {name: weight for name, weight in self.wrapped.named_parameters() if weight.requires_grad}

    def save(self, folder: Path) -> ModelRef:
        """adapter_config.json and adapter_model.safetensors, as peft and vLLM read them."""
        self.wrapped.peft_config["default"].base_model_name_or_path = self.base.name
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Could not find a config file")
            self.wrapped.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        return ModelRef(self.base.name, self.base.base, folder)
