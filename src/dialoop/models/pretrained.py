"""transformers' loading, as every model here is loaded: safetensors only, no remote code, nothing missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch

from dialoop.errors import ModelError


def from_pretrained(
    auto: Any, folder: Path, dtype: torch.dtype, *, warns: bool = False, **options: Any
) -> tuple[Any, list[str]]:
    """The model by one of transformers' Auto classes, and the names of tensors that are missing.

    warns: of what transformers warns, such as tensors that have no place.
    Raises ModelError where transformers cannot load it.
    """
    from transformers.utils import logging

    progress: Any = logging
    progress.disable_progress_bar()
    try:
        with nullcontext() if warns else unreported():
            model, report = auto.from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                output_loading_info=True, **options,
            )  # fmt: skip
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{folder}: transformers cannot load it: {first_line(error)}: check config.json"
        ) from error
    return model, sorted(report["missing_keys"])


def refuse_missing(folder: Path, missing: Sequence[str]) -> None:
    """Raises ModelError where there are any."""
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} tensors are missing, such as {missing[0]}; expected all that "
            f"config.json describes: copy the model again"
        )


def first_line(error: BaseException) -> str:
    """Of what an error says, short enough to stand in another."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(":. ")


@contextmanager
def unreported() -> Iterator[None]:
    """transformers warns of heads that are left out and of plans that it has not; what may not be missing is
    checked here.
    """
    log = getLogger("transformers")
    before = log.level
    log.setLevel(ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
