"""A run directory belongs to one run: what it began with must be what goes on in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialoop.errors import TrainError
from dialoop.train.world import world


def claim(folder: Path, run: Mapping[str, Any]) -> None:
    """Make `folder` the run's, or find that it is. Of several processes the first does, the others wait.

    run: what identifies it, as JSON. Raises TrainError where `folder` holds another one.
    """
    here = world()
    if here.leads:
        _claim(folder, run)
    here.wait()


def _claim(folder: Path, run: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != run:
        raise TrainError(
            f"{folder} holds a run of another recipe, base or other data: choose another --run, or remove it"
        )
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False), encoding="utf-8")
