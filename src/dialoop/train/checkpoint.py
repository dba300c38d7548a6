"""Checkpoints that are whole or absent: written aside, synced, renamed; a manifest of sums comes last."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from dialoop.errors import TrainError

KEEP = 2
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors and plain values of a run after `step` updates."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder/step-N` atomically; older ones than the last two go once the new one is durable."""
    folder.mkdir(parents=True, exist_ok=True)
    target, draft = folder / f"step-{checkpoint.step:08d}", folder / f".draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    save_file({k: v.detach().cpu().contiguous() for k, v in checkpoint.tensors.items()}, draft / "state.safetensors")
    (draft / "state.json").write_text(json.dumps(dict(checkpoint.values)), encoding="utf-8")
    files = {name: _sum(draft / name) for name in ("state.safetensors", "state.json")}
    manifest = {"step": checkpoint.step, "files": files}
    (draft / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for file in draft.iterdir():
        _sync(file)
    _sync(draft)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    _sync(folder)
    for old in _all(folder)[:-KEEP]:
        shutil.rmtree(old)
    return target


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose sums are right; a damaged one is named in the log and passed over."""
    for path in reversed(_all(folder)):
        try:
            return _load(path)
        except (TrainError, OSError, ValueError) as error:
            log.warning("%s cannot be used (%s): trying the one before", path, error)
    return None


def _load(path: Path) -> Checkpoint:
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    for name, wanted in manifest["files"].items():
        if _sum(path / name) != wanted:
            raise TrainError(f"{name} is not what was written: its sha256 differs")
    values = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return Checkpoint(manifest["step"], load_file(path / "state.safetensors"), values)


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
