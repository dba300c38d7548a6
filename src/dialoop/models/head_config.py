"""What a directory says of the head of its model; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from dialoop.models.weights import read_json

HeadKind = Literal["sequence", "token"]
CLASSES: Mapping[HeadKind, str] = {"sequence": "ForSequenceClassification", "token": "ForTokenClassification"}
"""What the names of transformers' classes end with."""


def head_kind(folder: Path) -> HeadKind | None:
    """What kind of head the model in a directory has, None for one without."""
    if not (folder / "config.json").is_file():
        return None
    held = str((read_json(folder / "config.json").get("architectures") or [""])[0])
    return next((kind for kind, name in CLASSES.items() if held.endswith(name)), None)


def labels_of(folder: Path) -> tuple[str, ...]:
    """The classes that a head tells apart, in its order."""
    config = read_json(folder / "config.json")
    named = {int(i): str(label) for i, label in (config.get("id2label") or {}).items()}
    count = int(config.get("num_labels") or len(named) or 2)
    return tuple(named.get(i, f"LABEL_{i}") for i in range(count))


def kind_of(folder: Path) -> Literal["classifier", "scorer", "tagger"]:
    """A scorer's head gives one number, of which the logistic function is P(answer fits history)."""
    if head_kind(folder) == "token":
        return "tagger"
    return "scorer" if len(labels_of(folder)) == 1 else "classifier"
