"""Causal language models from Hugging Face and PEFT directories; safetensors only, no remote code."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dialoop.errors import ConfigError, ModelError, echo
from dialoop.models.adapter_files import BITFIT, BOTTLENECK, OWN_TYPES
from dialoop.models.bitfit import load_bitfit
from dialoop.models.bottleneck import load_bottleneck
from dialoop.models.pretrained import first_line, from_pretrained, refuse_missing
from dialoop.models.processor import multiplies_bf16
from dialoop.models.soft_prompt import SOFT_TYPES, load_soft_prompt
from dialoop.models.weights import check_adapter, check_file, check_weights, read_json
from dialoop.models.wrapped import quiet
from dialoop.types import ModelRef


def default_device() -> str:
    """What DIALOOP_DEVICE names (`cpu`, `cuda`, `cuda:1`, `mps`); else `cuda` where there is one, else `cpu`.

    Raises ConfigError where this machine has no such device.
    """
    named = os.environ.get("DIALOOP_DEVICE", "").strip()
    if named and not _present(named):
        raise ConfigError(
            f"DIALOOP_DEVICE is {named!r}, which torch {torch.__version__} does not find on this machine; "
            f"wanted: cpu, cuda, cuda:1 and so on, or mps"
        )
    return named or ("cuda" if torch.cuda.is_available() else "cpu")


def _present(named: str) -> bool:
    kind, _, number = named.partition(":")
    if kind == "cuda":
        return (number or "0").isdigit() and int(number or "0") < torch.cuda.device_count()
    return named == "cpu" or (named == "mps" and torch.backends.mps.is_available())


def default_dtype(device: str | None = None) -> torch.dtype:
    """bf16 on GPUs and on CPUs that multiply it faster than float32, else that."""
    on_cpu = (device or default_device()) == "cpu"
    return torch.float32 if on_cpu and not multiplies_bf16() else torch.bfloat16


def stored_dtype(folder: Path) -> torch.dtype | None:
    """What a model directory says its weights are; None where it does not say. Raises as `check_config`."""
    config = check_config(folder)
    named = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), None)
    return named if isinstance(named, torch.dtype) else None


def load_model(
    ref: ModelRef, *, dtype: torch.dtype | None = None, device: str | None = None, merge: bool = False
) -> torch.nn.Module:
    """The model in eval mode, its adapter attached (`merge`: folded into the weights where it can be).

    Soft prompts and bottleneck adapters cannot. A soft prompt's virtual tokens (`opening_ids`) are the
    caller's to put before a text.

    dtype, device: None = default_dtype(), default_device(). Raises ModelError, before allocating where
    files are missing or damaged, hold pickles or another kind of model.
    """
    device = device or default_device()
    dtype = dtype or default_dtype(device)
    check_config(ref.base)
    check_weights(ref.base)
    if ref.adapter is not None:
        check_adapter_config(ref.adapter)
        check_adapter(ref.adapter)
    model = _load_base(ref.base, dtype)
    if ref.adapter is not None:
        model = add_adapter(model, ref.adapter, merge=merge)
    loaded: torch.nn.Module = model.to(device).eval()
    return loaded


def check_config(folder: Path) -> dict[str, Any]:
    """The config.json of a causal language model that transformers knows. Raises ModelError."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such directory: give a registered model or a Hugging Face directory")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds no config.json: give a Hugging Face model directory")
    config = read_json(folder / "config.json")
    _check_architecture(folder, config)
    return config


def _check_architecture(folder: Path, config: dict[str, Any]) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    model_type, architectures = config.get("model_type"), config.get("architectures")
    if not isinstance(model_type, str) or model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        own_code = "; it asks to run its own code, which dialoop never does" if config.get("auto_map") else ""
        raise ModelError(
            f"{folder}: model_type {echo(model_type)} is no causal language model that transformers "
            f"knows{own_code}: use one such as llama or qwen3"
        )
    wanted = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    accepted = [wanted] if isinstance(wanted, str) else list(wanted)
    if architectures and not (isinstance(architectures, list) and architectures[0] in accepted):
        held = architectures[0] if isinstance(architectures, list) else architectures
        raise ModelError(
            f"{folder}: holds {echo(held)}, expected {accepted[0]}, a model that writes text: "
            f"choose its causal variant"
        )


def check_adapter_config(folder: Path) -> dict[str, Any]:
    """The adapter_config.json of a PEFT method that peft knows. Raises ModelError."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: holds no adapter_config.json: give a PEFT directory")
    config = read_json(path)
    from peft import PeftType

    known = [str(member.value) for member in PeftType]
    if config.get("peft_type") not in (*known, *OWN_TYPES):
        raise ModelError(
            f"{path}: peft_type {echo(config.get('peft_type'))} is unknown to peft: expected one such as LORA"
        )
    return config


def _load_base(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    model, missing = from_pretrained(AutoModelForCausalLM, folder, dtype, warns=True)
    refuse_missing(folder, missing)
    return model


def refuse_unmergeable(ref: ModelRef, mend: str = "export it with --as adapter, or serve it here") -> None:
    """Raises ModelError where the adapter of `ref` cannot be folded into the weights of its base."""
    kind = None if ref.adapter is None else check_adapter_config(ref.adapter)["peft_type"]
    if kind in {BOTTLENECK, *SOFT_TYPES}:
        raise ModelError(f"{ref.adapter}: {kind} adds to the model what no weight can hold: {mend}")


def add_adapter(model: Any, folder: Path, *, merge: bool) -> Any:
    """`model` with the adapter in `folder`, of any kind; merge: as for `load_model`. Raises ModelError."""
    kind = check_adapter_config(folder)["peft_type"]
    with fitting(folder):
        if kind == BOTTLENECK:
            return load_bottleneck(model, folder)
        if kind == BITFIT:
            return load_bitfit(model, folder)
        if kind in SOFT_TYPES:
            return load_soft_prompt(model, folder)
        return _add_peft(model, folder, merge)


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """What goes wrong in the block is an adapter that does not fit. Raises ModelError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{folder}: the adapter does not fit its base: {first_line(error)}: "
            f"use the base that it was trained on"
        ) from error


def _add_peft(model: Any, folder: Path, merge: bool) -> Any:
    # fp32 adapters merge more exactly; beside a bf16 base they would be cast on every call.
    wrapped = wrapped_adapter(model, folder, exact=merge)
    return wrapped.merge_and_unload(safe_merge=True) if merge else wrapped


def wrapped_adapter(model: Any, folder: Path, *, trainable: bool = False, exact: bool = False) -> Any:
    """peft's wrapper of `model` with the layers in `folder`; exact: in fp32 whatever the model is.

    Raises ValueError where tensors are missing or have no place.
    """
    from peft import PeftModel

    # Tensors that do not match are a warning to peft; `_check_keys` makes them an error.
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        wrapped = PeftModel.from_pretrained(
            model, folder, is_trainable=trainable, local_files_only=True, autocast_adapter_dtype=exact
        )
    _check_keys(wrapped, folder)
    return wrapped


def _check_keys(model: Any, folder: Path) -> None:
    """Raises ValueError where the file's tensors are not those of the adapter that its config describes."""
    from peft import get_peft_model_state_dict

    held = {name for name in check_file(check_adapter(folder)) if name != "__metadata__"}
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    for name in sorted(wanted - held):
        raise ValueError(f"tensor {name} is missing")
    for name in sorted(held - wanted):
        raise ValueError(f"tensor {name} has no place in the model")
