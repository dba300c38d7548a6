"""What a directory holds: a whole model, or an adapter and the base below it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from dialoop.errors import StoreError, echo
from dialoop.store.artefacts import sha256
from dialoop.types import ModelRef

ADAPTER = "adapter_config.json"
TOKENIZER = "tokenizer.json"
Resolve = Callable[[str], ModelRef]


def directory_ref(name: str, folder: Path, below: Resolve | None, base: str | None = None) -> ModelRef:
    """The model in a Hugging Face directory, or the PEFT directory and its base. Raises StoreError.

    below: resolves the base of an adapter; None refuses adapters.  base: None = as the adapter says.
    """
    if (folder / ADAPTER).is_file():
        if below is None:
            raise StoreError(
                f"{folder}: is itself an adapter, expected a whole model below an adapter: merge it first, "
                f"with dialoop models export"
            )
        return ModelRef(name, below(base or _base_of_adapter(folder)).base, folder)
    for wanted in ("config.json", TOKENIZER):
        if not (folder / wanted).is_file():
            raise StoreError(f"{folder}: holds no {wanted}: give a whole Hugging Face model directory")
    return ModelRef(name, folder)


def _base_of_adapter(folder: Path) -> str:
    path = folder / ADAPTER
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: names no base_model_name_or_path: add the path of the base model"
        ) from error
    if not isinstance(base, str) or not base:
        raise StoreError(
            f"{path}: base_model_name_or_path is {echo(base)}: set it to the path of the base model"
        )
    return base


def template_hash(*folders: Path | None) -> str | None:
    """The fingerprint of the first tokenizer and chat template among the directories; None without any.

    An encoder has no template: of its tokenizer's file then.
    """
    for folder in folders:
        if folder is not None and (folder / TOKENIZER).is_file():
            from dialoop.chat.directory import has_template
            from dialoop.chat.tokenizer import ChatTokenizer

            if not has_template(folder):
                return sha256(folder / TOKENIZER)[:32]
            return ChatTokenizer.load(folder).fingerprint()
    return None


def check_template(ref: ModelRef, expected: str | None) -> None:
    """Raises StoreError where the tokenizer or template is not the one that was registered."""
    if expected is not None and template_hash(ref.adapter, ref.base) != expected:
        raise StoreError(
            f"{ref.base}: the tokenizer or chat template of {ref.name} changed since it was registered, so "
            f"it would be asked in another form than it learnt: restore the files, or register it anew"
        )
