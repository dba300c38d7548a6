"""Checkpoints that are whole or absent: written aside, synced, renamed; a manifest of sums comes last."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    for left_over in folder.glob(".draft-*"):
        shutil.rmtree(left_over)
    target, draft = folder / f"step-{checkpoint.step:08d}", folder / f".draft-{os.getpid()}"
    draft.mkdir()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, draft / "state.safetensors")
    (draft / "state.json").write_text(json.dumps(dict(checkpoint.values)), encoding="utf-8")
    files = {name: _sum(draft / name) for name in ("state.safetensors", "state.json")}
    manifest = {"step": checkpoint.step, "files": files}
    (draft / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for file in draft.iterdir():
        _sync(file)
    _sync(draft)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    _sync(folder)
    _clear(folder, target)
    return target


def _clear(folder: Path, target: Path) -> None:
    """Remove what is too old, and what lies after `target`: damaged ones that a resumed run passed over."""
    kept = [path for path in _all(folder) if path.name <= target.name][-KEEP:]
    for path in _all(folder):
        if path not in kept:
            shutil.rmtree(path)


def latest(folder: Path, wanted: Callable[[Checkpoint], bool] = lambda checkpoint: True) -> Checkpoint | None:
    """The newest checkpoint that is `wanted` and whose sums are right.

    A damaged one is named in the log and passed over.
    """
    for path in reversed(_all(folder)):
        try:
            if wanted(found := _load(path)):
                return found
        except (TrainError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s cannot be used (%s): trying the one before", path, error)
    if _all(folder):
        log.warning("%s: no checkpoint can be used: the run starts anew", folder)
    return None


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold `folder` until the block or the process ends. Raises TrainError where another process does."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainError(
                f"{folder} is being trained in by another process: wait for it, or stop it"
            ) from error
        yield


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
