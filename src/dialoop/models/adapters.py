"""Many LoRA adapters beside one base in memory: in one forward each row goes through its own."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from dialoop.errors import ModelError
from dialoop.models.bank import MOST_PLACES, Bank, Factors, Part, add_product
from dialoop.models.linear import PackedLinear
from dialoop.models.load import check_adapter_config, default_dtype
from dialoop.models.weights import check_adapter

_NAME = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<factor>[AB])\.weight")
_ALTERS_MORE = (
    "use_dora", "modules_to_save", "alpha_pattern", "fan_in_fan_out", "lora_bias", "target_parameters",
    "trainable_token_indices", "layer_replication", "alora_invocation_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """An adapter in memory: factors by the path of their layer, and the sha256 of their files."""

    layers: Mapping[str, Factors]
    digest: str

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(each.a.nbytes + each.b.nbytes for each in self.layers.values())


def read_lora(folder: Path, layers: Mapping[str, nn.Module], like: Tensor) -> Lora:
    """A PEFT LoRA directory for a model of these layers, on the device and in the type of `like`.

    The layers' weights are not touched: whoever packed them may have let them go.

    Raises ModelError where the adapter changes more than linear layers inside the decoder, or does not fit:
    such a one is served merged into a base of its own.
    """
    config = check_adapter_config(folder)
    more = [name for name in _ALTERS_MORE if config.get(name)]
    if config["peft_type"] != "LORA" or config.get("bias", "none") != "none" or more:
        raise ModelError(f"{folder}: {', '.join(more) or config['peft_type']}: not a plain LoRA adapter")
    found: dict[str, dict[str, Tensor]] = {}
    raw = check_adapter(folder).read_bytes()
    for name, tensor in load(raw).items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise ModelError(f"{folder}: tensor {name} is no factor of a linear layer")
        found.setdefault(match["path"], {})[match["factor"]] = tensor
    digest = sha256(json.dumps(config, sort_keys=True).encode() + raw).hexdigest()
    scaled = {path: _factors(folder, path, layers.get(path), parts, config) for path, parts in found.items()}
    return Lora({path: Factors(a.to(like), b.to(like)) for path, (a, b) in scaled.items()}, digest)


def _factors(
    folder: Path, path: str, layer: Any, parts: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """A and scaled B, as they are in the file and in float32."""
    a, b = parts.get("A"), parts.get("B")
    linear = type(layer) in (nn.Linear, PackedLinear)
    if not linear or path.endswith("lm_head") or a is None or b is None:
        raise ModelError(f"{folder}: {path} is no linear layer inside the decoder")
    shape = (layer.out_features, layer.in_features)
    if (b.shape[0], a.shape[1]) != shape or a.shape[0] != b.shape[1]:
        raise ModelError(f"{folder}: {path}: the factors do not fit {shape}")
    rank = a.shape[0]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return a, b.float() * scale


class Adapters:
    """The adapters beside one model. Their layers are watched by hooks; the model's weights stay its own."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        weight = next(model.parameters())
        # As the layers beside which they stand: on a CPU 16 bits are multiplied as bf16 or not at all.
        on_cpu = weight.device.type == "cpu"
        wide = weight.dtype == torch.float32 or default_dtype("cpu") == torch.float32
        dtype = weight.dtype if not on_cpu else torch.float32 if wide else torch.bfloat16
        self._like = torch.empty(0, dtype=dtype, device=weight.device)
        self._adapters: dict[str, Mapping[str, Factors]] = {}
        self._hooks: dict[str, Any] = {}
        self._ranks: dict[str, int] = {}
        self._orders: dict[Factors, Tensor] = {}
        self._rows: Sequence[tuple[slice, Mapping[str, Factors]]] = ()
        self._bank: Bank | None = None
        self._banked = False

    @property
    def names(self) -> tuple[str, ...]:
        """Those in memory."""
        return tuple(self._adapters)

    def read(self, folder: Path) -> Lora:
        """An adapter that fits, from its directory, in any thread. Raises ModelError as `read_lora`."""
        return read_lora(folder, dict(self._model.named_modules()), self._like)

    def add(self, name: str, lora: Lora) -> None:
        """From now on `applied` knows it by `name`."""
        self._adapters[name] = lora.layers
        self._ranks[name] = max((len(each.a) for each in lora.layers.values()), default=0)
        for path in lora.layers.keys() - self._hooks.keys():
            layer = self._model.get_submodule(path)
            self._hooks[path] = layer.register_forward_hook(self._hook(path))

    def remove(self, name: str) -> None:
        """Forget an adapter, and the layers that it alone watched."""
        del self._ranks[name]
        for factors in self._adapters.pop(name).values():
            self._orders.pop(factors, None)
        if self._bank is not None and name in self._bank.names:
            self._bank = None
        watched = {path for factors in self._adapters.values() for path in factors}
        for path in self._hooks.keys() - watched:
            self._hooks.pop(path).remove()

    @contextmanager
    def applied(self, rows: Sequence[tuple[slice, str]]) -> Iterator[None]:
        """While it lasts, these rows of a forward go through these adapters; "" and rows not named: none."""
        self._rows = [(span, self._adapters[name]) for span, name in rows if name]
        self._banked = self._seat(rows)
        try:
            yield
        finally:
            self._rows, self._banked = (), False

    def _seat(self, rows: Sequence[tuple[slice, str]]) -> bool:
        """Seat the rows in a bank, where they are few and go through several adapters."""
        names = {name for _, name in rows if name}
        together = sum(self._ranks[name] for name in names)
        if len(names) < 2 or rows[-1][0].stop * together > MOST_PLACES:
            return False
        if self._bank is None or not names <= self._bank.names or 2 * len(names) < len(self._bank.names):
            self._bank = Bank({name: self._adapters[name] for name in sorted(names)})
        self._bank.seat(rows)
        return True

    @property
    def active(self) -> bool:
        """Whether any row goes through an adapter."""
        return bool(self._rows)

    def add_to(self, output: Tensor, parts: Sequence[Part], x: Tensor) -> None:
        """What the rows' adapters add to `output`, (..., T, out), of the layers side by side for `x`."""
        if self._banked:
            assert self._bank is not None
            self._bank.add_to(output, parts, x)
            return
        for part in parts:
            for span, adapter in self._rows:
                if factors := adapter.get(part.path):
                    low = functional.linear(x[..., span, :].to(factors.a.dtype), factors.a)
                    add_product(output[..., span, part.columns], low, self._turned(factors, part))

    def _turned(self, factors: Factors, part: Part) -> Tensor:
        """The second factor in the order of the layer's outputs."""
        if part.pairs is None:
            return factors.b
        if factors not in self._orders:
            self._orders[factors] = factors.b[part.pairs]
        return self._orders[factors]

    def _hook(self, path: str) -> Any:
        def add(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            self.add_to(output, (Part(path, slice(0, output.shape[-1])),), inputs[0])
            return output

        return add
