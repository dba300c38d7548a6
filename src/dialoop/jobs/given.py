"""What a run begins with: the models that its recipe names, and its rows, read, cleaned and split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialoop.config import DistillObjective, PreferenceObjective, TuneRecipe
from dialoop.data.dataset import Dataset, load_dataset, load_preferences
from dialoop.store.registry import Store
from dialoop.types import Conversation, ModelRef, Preference


@dataclass(frozen=True, slots=True)
class Given:
    """learnt: the rows that are trained on.  dataset: the dialogues in them."""

    base: ModelRef
    teacher: ModelRef | None
    learnt: Dataset[Any]
    dataset: Dataset[Conversation]

    @property
    def pairs(self) -> tuple[Preference, ...]:
        """Test rows that have two answers."""
        return tuple(row for row in self.learnt.test if isinstance(row, Preference))


def given(store: Store, recipe: TuneRecipe, scratch: Path) -> Given:
    """Raises as `Store.models.resolve` and `load_dataset` do."""
    base, teacher = models_of(recipe, store)
    learnt = read_learnt(recipe, scratch)
    pairs = isinstance(recipe.objective, PreferenceObjective)
    return Given(base, teacher, learnt, learnt.each(lambda pair: pair.conversation) if pairs else learnt)


def models_of(recipe: TuneRecipe, store: Store) -> tuple[ModelRef, ModelRef | None]:
    """The base, and the teacher where there is one."""
    base, objective = store.models.resolve(recipe.base), recipe.objective
    return base, store.models.resolve(objective.teacher) if isinstance(objective, DistillObjective) else None


def read_learnt(recipe: TuneRecipe, scratch: Path) -> Dataset[Any]:
    """Preferences where the objective learns from pairs, else dialogues."""
    read: Any = load_preferences if isinstance(recipe.objective, PreferenceObjective) else load_dataset
    rows: Dataset[Any] = read(recipe.data, scratch=scratch)
    return rows
