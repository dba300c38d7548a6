"""Directories of files that appear whole or not at all: written aside, flushed, then renamed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dialoop.errors import StoreError
from dialoop.store.identity import new_id

CHUNK = 1 << 20
STAGING = ".staging"


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    temporary = path.with_name(f".{path.name}.{new_id('part')}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_directory(path.parent)


def flush_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """A new empty directory below `root`, removed at the end unless it was renamed."""
    area = root / STAGING
    area.mkdir(parents=True, exist_ok=True)
    with (root / f"{STAGING}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        folder = area / new_id("part")
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(root: Path) -> int:
    """Remove what killed processes left half-written; how many directories that was. Waits for nobody."""
    area = root / STAGING
    if not area.is_dir():
        return 0
    with (root / f"{STAGING}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        left = list(area.iterdir())
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
    return len(left)


def copy_files(source: Path, target: Path) -> dict[str, str]:
    """Copy a directory's files, flushed to disk; the sha256 of each by relative path. Raises StoreError."""
    hashes: dict[str, str] = {}
    for path in _regular_files(source):
        relative = path.relative_to(source)
        try:
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            hashes[relative.as_posix()] = _copy(path, target / relative)
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be copied into the store: {reason(error)}; nothing was "
                f"registered: free space or set the permissions, then register again"
            ) from error
    for folder in [target, *(p for p in target.rglob("*") if p.is_dir())]:
        flush_directory(folder)
    return hashes


def _regular_files(source: Path) -> list[Path]:
    if not source.is_dir():
        raise StoreError(f"{source}: no such directory: give the directory of the model's files")
    found = sorted(p for p in source.rglob("*") if p.is_file())
    if not found:
        raise StoreError(f"{source}: holds no files: give the directory of the model's files")
    return found


def _copy(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def publish(folder: Path, target: Path) -> None:
    """Rename a staged directory to its final place, where nothing lies yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    flush_directory(target.parent)


def discard(folder: Path, root: Path) -> None:
    """Remove a directory below `root`; its name is free at once, whatever happens meanwhile."""
    if folder.is_dir():
        with staged(root) as away:
            folder.rename(away / folder.name)


def numbered(folder: Path) -> list[int]:
    """The numbers that name the entries of a directory, in order."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def reason(error: BaseException) -> str:
    """Why the system or the database refused, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(getattr(error, "orig", None) or error)[:120]


def sha256(path: Path) -> str:
    """The hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed_files(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """The recorded files that are missing or hold other bytes now."""
    return [
        name
        for name, digest in hashes.items()
        if not (folder / name).is_file() or sha256(folder / name) != digest
    ]
