"""The kinds of recipes, by the word that names them."""

from __future__ import annotations

from collections.abc import Mapping

from dialoop.config.heads import ClassifyRecipe, PairRecipe, TagRecipe
from dialoop.config.recipes import PretrainRecipe, TuneRecipe
from dialoop.config.settings import Settings

TUNED: Mapping[str, type[Settings]] = {
    "tune": TuneRecipe, "classify": ClassifyRecipe, "pair": PairRecipe, "tag": TagRecipe,
}  # fmt: skip
"""Of `dialoop tune`; a recipe without a kind is the first."""
KINDS: Mapping[str, type[Settings]] = {**TUNED, "pretrain": PretrainRecipe}
"""All."""
