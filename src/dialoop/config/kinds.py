"""The kinds of recipes, by the word that names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dialoop.config.heads import AnyHeadRecipe, ClassifyRecipe, PairRecipe, TagRecipe
from dialoop.config.recipes import PretrainRecipe, TuneRecipe
from dialoop.config.settings import Settings

TunedRecipe = TuneRecipe | AnyHeadRecipe
TUNED: Mapping[str, Any] = {
    "tune": TuneRecipe, "classify": ClassifyRecipe, "pair": PairRecipe, "tag": TagRecipe,
}  # fmt: skip
"""Of `dialoop tune`; a recipe without a kind is the first."""
KINDS: Mapping[str, type[Settings]] = {**TUNED, "pretrain": PretrainRecipe}
"""All."""


def tuned_recipe(table: Mapping[str, Any]) -> TunedRecipe:
    """A recipe as it was dumped."""
    recipe: TunedRecipe = TUNED[table.get("kind", "tune")].model_validate(table)
    return recipe
