"""Where a model comes from, and whether test dialogues stood among those it was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dialoop.config import TuneRecipe
from dialoop.data.leak import leaks
from dialoop.errors import DialoopError
from dialoop.jobs.given import dialogues_in, read_rows
from dialoop.store.models import Models, ModelVersion
from dialoop.types import Conversation


@dataclass(frozen=True, slots=True)
class Leak:
    """share: of test dialogues that repeat training dialogues, None where it is not known, as `words` say."""

    share: float | None
    words: str


def lineage(models: Models, name: str) -> str:
    """`shop@2 (lora, data 1a2b3c4d5e6f, prompt dialogue@1) ← dialoop-base`."""
    return " ← ".join(_link(link) for link in models.lineage(name))


def _link(link: ModelVersion | str) -> str:
    if isinstance(link, str):
        return link
    told = [link.kind, f"data {link.data_hash[:12] if link.data_hash else 'unknown'}"]
    if link.prompt is not None:
        told.append(f"prompt {link.prompt}")
    if link.state == "removed":
        told.append("removed")
    return f"{link.ref} ({', '.join(told)})"


def newest(models: Models, name: str) -> ModelVersion | None:
    """The registered version that is meant; None for what lies outside."""
    first = models.lineage(name)[0]
    return first if isinstance(first, ModelVersion) else None


def recipe_text(version: ModelVersion | None) -> str:
    """Its recipe as JSON on one line, "" where there is none."""
    return json.dumps(version.recipe, ensure_ascii=False) if version and version.recipe else ""


def leak_of(version: ModelVersion | None, test: Sequence[Conversation], scratch: Path) -> Leak:
    """By reading the model's training data once more, as its recipe says."""
    if version is None:
        return Leak(None, "not known: the model is not in the store")
    try:
        recipe = TuneRecipe.model_validate(version.recipe)
        train = dialogues_in(recipe, read_rows(recipe, scratch)).train
    except (ValidationError, DialoopError, OSError) as error:
        kind = type(error).__name__
        return Leak(None, f"not known: the training data of {version.ref} cannot be read ({kind})")
    found = leaks(train, test, threshold=recipe.data.clean.near_threshold)
    return Leak(found.share, found.words)
