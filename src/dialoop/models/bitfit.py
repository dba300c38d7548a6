"""BitFit (Ben Zaken et al. 2021): the biases that a model has, and the norms' weights where it has none.

Llama's kind has no biases. Adding some would make an architecture that other tools do not load, so the norms'
weights are trained there: as few numbers, at the same places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.nn import Parameter

from dialoop.config import BitFitMethod
from dialoop.errors import ModelError
from dialoop.models.adapter_files import BITFIT, fill, read_settings, write_adapter
from dialoop.models.wrapped import refuse_adapter
from dialoop.types import ModelRef


@dataclass(frozen=True)
class BitFit:
    """The method `bitfit`."""

    settings: BitFitMethod

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> BitFitModel:
        refuse_adapter(base)
        model.requires_grad_(False)
        biases = {name: weight for name, weight in model.named_parameters() if name.endswith("bias")}
        norms = not biases if self.settings.norms is None else self.settings.norms
        weights = _chosen(model, norms)
        if not weights:
            raise ModelError(f"{base.name} has no biases, and method.norms is false: leave method.norms out")
        for weight in weights.values():
            weight.requires_grad_(True)
        return BitFitModel(model, base, norms, weights)


def _chosen(model: nn.Module, norms: bool) -> dict[str, Parameter]:
    """Biases, and weights of norms where asked for, by path."""
    named = dict(model.named_parameters())
    weights = {name: weight for name, weight in named.items() if name.endswith("bias")}
    if norms:
        inside = {name for name, module in model.named_modules() if "norm" in type(module).__name__.lower()}
        weights |= {n: w for n, w in named.items() if n.rpartition(".")[0] in inside}
    return weights


def load_bitfit(model: nn.Module, folder: Path) -> nn.Module:
    """`model` with the values that lie in `folder` put in. Raises ModelError where they do not fit."""
    fill(folder, _chosen(model, bool(read_settings(folder).get("norms"))))
    return model


def continue_bitfit(model: nn.Module, folder: Path, base: ModelRef) -> BitFitModel:
    """The same, to be trained on."""
    settings = BitFitMethod(norms=bool(read_settings(folder).get("norms")))
    attached = BitFit(settings).attach(model, base, seed=0)
    fill(folder, attached.weights)
    return attached


@dataclass(frozen=True)
class BitFitModel:
    """A model whose biases (norms: and norms' weights) are trained."""

    model: nn.Module
    base: ModelRef
    norms: bool
    weights: Mapping[str, Parameter]

    def save(self, folder: Path) -> ModelRef:
        """The two files of an adapter: the trained values, which replace the base's."""
        return write_adapter(folder, BITFIT, {"norms": self.norms}, self.weights, self.base)
