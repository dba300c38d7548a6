"""Models that runs made, as versions in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dialoop.config import ContinueMethod, TuneRecipe
from dialoop.config.kinds import TunedRecipe
from dialoop.jobs.origins import newest
from dialoop.store.models import Models, ModelVersion
from dialoop.store.registry import Store


def register(
    store: Store, recipe: TunedRecipe, name: str, files: Path, *, base: str, **facts: Any
) -> ModelVersion:
    """The next version of `name`. facts: as for `Models.register`, which this raises as."""
    return store.models.register(
        name, _kind(store.models, recipe, base), files, base=base, recipe=recipe.model_dump(mode="json"),
        continues=isinstance(recipe.method, ContinueMethod), **facts,
    )  # fmt: skip


def _kind(models: Models, recipe: TunedRecipe, base: str) -> str:
    """What a head does, or the method; of an adapter that was trained on, that which made it."""
    if not isinstance(recipe, TuneRecipe):
        return recipe.kind
    if not isinstance(recipe.method, ContinueMethod):
        return recipe.method.kind
    before = newest(models, base)
    return "adapter" if before is None else before.kind
