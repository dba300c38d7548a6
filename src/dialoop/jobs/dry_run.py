"""What `dialoop tune` would do, told from the rows and ten real updates; nothing is left behind."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialoop.config import TuneRecipe
from dialoop.data.dataset import Dataset
from dialoop.jobs.given import given
from dialoop.store.registry import Store
from dialoop.train.estimate import Estimate, Piece, estimate, pieces


@dataclass(frozen=True, slots=True)
class Outlook:
    """samples: rows as the model reads them."""

    dataset: Dataset[Any]
    estimate: Estimate
    samples: list[list[Piece]]


def dry_run(recipe: TuneRecipe, home: Path, *, samples: int) -> Outlook:
    """Read and clean, assemble, make ten updates on a copy in memory. Raises what the run itself would."""
    with Store.open(home) as store, tempfile.TemporaryDirectory(prefix="dialoop-dry-") as scratch:
        known = given(store, recipe, Path(scratch))
        rows = known.learnt
        told = estimate(known.recipe, known.base, rows.train, rows.valid, teacher=known.teacher)
        return Outlook(rows, told, pieces(told.rows, known.base, samples))
