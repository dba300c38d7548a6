"""Answers and likelihoods that models once gave: what was asked before is not asked again.

One file a model, a line a result, each written as it comes: a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from dialoop import __version__
from dialoop.store.artefacts import sha256 as file_hash
from dialoop.types import ModelRef


class KeptAnswers:
    """The results of one model, by what was asked of it.

    hits, asked: how many were found of those looked up.
    """

    def __init__(self, folder: Path, model: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{model}.jsonl"
        self._found = _read(self._path)
        self.hits = self.asked = 0

    def get(self, key: str) -> Any:
        """What was kept, or None."""
        self.asked += 1
        found = self._found.get(key)
        self.hits += found is not None
        return found

    def keep(self, key: str, result: Any) -> None:
        """result: JSON; on the disk when this returns, as far as the system promises."""
        self._found[key] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, result], ensure_ascii=False) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """A line that a kill cut short is left out, and the next one begins anew."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    return dict(pair for line in text.splitlines() if (pair := _pair(line)))


def _pair(line: str) -> tuple[str, Any] | None:
    try:
        key, result = json.loads(line)
    except ValueError:
        return None
    return key, result


def key_of(tokens: Sequence[int], parameters: Mapping[str, Any]) -> str:
    """sha256 of a prompt's tokens and of all that shapes the result; another version asks anew."""
    told = json.dumps({"dialoop": __version__, **parameters}, sort_keys=True).encode()
    return sha256(told + b"\0" + array("q", tokens).tobytes()).hexdigest()


def model_hash(ref: ModelRef) -> str:
    """sha256 of the names and bytes of a model's files, its adapter's beside its base's."""
    digest = sha256()
    for folder in (ref.base, *([ref.adapter] if ref.adapter else [])):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder).as_posix()} {file_hash(path)}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()
