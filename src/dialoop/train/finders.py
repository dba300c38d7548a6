"""What a run can find out for itself before it begins: its learning rate, and the size of its batches.

What was found is written beside the run, and the same run takes it from there ever after.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dialoop.config import TuneRecipe
from dialoop.models.allocator import keep_freed_memory
from dialoop.train.batch import Batch
from dialoop.train.loop import Plan, Progress, train
from dialoop.train.memory import is_out_of_memory
from dialoop.train.peak import available_bytes, forget_peak, peak_bytes
from dialoop.train.tune import Fitted, Items, assemble, read_rows
from dialoop.types import ModelRef

LOWEST, HIGHEST = 1e-6, 1.0
UPDATES = 60
BLOWN_UP = 4.0
"""A loss this many times the best ends the range test."""
SMOOTH = 0.9
"""Weight of the losses before in the running mean that is judged."""
SAFE = 10.0
"""The rate found is the one where the loss is lowest, by this."""
SMALLEST_BATCH, LARGEST_BATCH = 512, 65536
ROOM = 0.8
"""Share of the memory that is left which a batch may take."""
WORTH = 1.05
"""A larger batch must be faster by this factor."""


@dataclass(frozen=True, slots=True)
class FoundRate:
    """tried: (learning rate, smoothed loss) of each update of the range test."""

    learning_rate: float
    tried: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class FoundBatch:
    """tried: (batch tokens, tokens a second) of each size.  batch_rows: of an update, as before."""

    batch_tokens: int
    batch_rows: int
    tried: tuple[tuple[int, float], ...]


class _Rising:
    """A plan's first updates, again and again, at rates that rise evenly by their logarithm."""

    def __init__(self, plan: Plan, steps: int) -> None:
        self.plan, self._steps = plan, steps

    @property
    def steps(self) -> int:
        return self._steps

    def batches(self, step: int) -> Sequence[Batch]:
        return self.plan.batches(step % self.plan.steps)

    def rate(self, step: int) -> float:
        return float(LOWEST * (HIGHEST / LOWEST) ** (step / max(1, self._steps - 1)))


class _Enough(Exception):  # noqa: N818
    """Leaves the range test where the loss has blown up."""


def find_rate(
    recipe: TuneRecipe,
    base: ModelRef,
    items: Items,
    *,
    teacher: ModelRef | None = None,
    updates: int = UPDATES,
) -> FoundRate:
    """A tenth of the rate at which the loss of a range test is lowest (Smith 2017, arXiv:1506.01186)."""
    keep_freed_memory()
    rows, _ = read_rows(recipe, base, items, ())
    with _scratch() as folder:
        made = assemble(recipe, base, rows, None, folder, teacher=teacher)
    tried: list[tuple[float, float]] = []
    mean = 0.0

    def watch(progress: Progress) -> None:
        nonlocal mean
        mean = SMOOTH * mean + (1 - SMOOTH) * progress.loss
        smooth = mean / (1 - SMOOTH**progress.step)
        if not math.isfinite(smooth) or (tried and smooth > BLOWN_UP * min(loss for _, loss in tried)):
            raise _Enough
        tried.append((progress.learning_rate, smooth))

    _on_scratch(made.objective, made.optimizer, _Rising(made.plan, updates), watch)
    best = min(tried, key=lambda each: each[1])[0]
    return FoundRate(float(f"{best / SAFE:.2g}"), tuple(tried))


def find_batch(
    recipe: TuneRecipe, base: ModelRef, items: Items, *, teacher: ModelRef | None = None
) -> FoundBatch:
    """The fastest `batch_tokens` that memory holds, doubled from 512; an update keeps its number of rows."""
    keep_freed_memory()
    rows, _ = read_rows(recipe, base, items, ())
    kept = _rows_of_an_update(recipe, rows)
    tried: list[tuple[int, float]] = []
    size, before = SMALLEST_BATCH, 0
    while size <= LARGEST_BATCH:
        taken = _speed(recipe, base, rows, size, teacher)
        if taken is None:
            break
        speed, memory = taken
        tried.append((size, speed))
        doubled, before = 2 * (memory - before) if before else 0, memory
        if size >= sum(row.size for row in rows.rows) or doubled > ROOM * available_bytes():
            break
        size *= 2
    return FoundBatch(_fastest(tried, recipe.train.batch_tokens), kept, tuple(tried))


def _fastest(tried: Sequence[tuple[int, float]], otherwise: int) -> int:
    best = tried[0] if tried else (otherwise, 0.0)
    for each in tried[1:]:
        best = each if each[1] > WORTH * best[1] else best
    return best[0]


def _rows_of_an_update(recipe: TuneRecipe, rows: Fitted) -> int:
    """As many as the recipe's updates hold on the average."""
    settings = recipe.train
    mean = sum(row.size for row in rows.rows) / len(rows.rows)
    return settings.batch_rows or max(1, round(settings.batch_tokens * settings.accumulate / mean))


def _speed(
    recipe: TuneRecipe, base: ModelRef, rows: Fitted, size: int, teacher: ModelRef | None
) -> tuple[float, int] | None:
    """Tokens a second and bytes at most of a few updates of one batch each; None where memory ended."""
    one = {"batch_tokens": size, "batch_rows": None, "accumulate": 1, "epochs": 1.0}
    with _scratch() as folder:
        made = assemble(with_train(recipe, one), base, rows, None, folder, teacher=teacher)
    seen: list[Progress] = []
    forget_peak()
    try:
        _on_scratch(made.objective, made.optimizer, _Rising(made.plan, 3), seen.append)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    first = seen[0]
    return (seen[-1].tokens - first.tokens) / (seen[-1].seconds - first.seconds), peak_bytes()


def _on_scratch(loss: Any, optimizer: Any, plan: Plan, watch: Callable[[Progress], None]) -> None:
    with _scratch() as folder:
        try:
            train(loss, optimizer, plan, folder, checkpoint_every=plan.steps + 1, on_progress=watch)
        except _Enough:
            return


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dialoop-finder-") as folder:
        yield Path(folder)


def with_train(recipe: TuneRecipe, changes: dict[str, Any]) -> TuneRecipe:
    """`recipe` with other settings of the loop."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


def found(
    recipe: TuneRecipe,
    base: ModelRef,
    items: Items,
    folder: Path,
    *,
    teacher: ModelRef | None = None,
    rate: bool,
    batch: bool,
    on_note: Callable[[str], None] = lambda note: None,
) -> TuneRecipe:
    """The recipe with what was asked for found, or taken from `folder/found.json` where it was before."""
    path = folder / "found.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if batch:
        if "batch" not in known:
            _keep(path, known, "batch", asdict(find_batch(recipe, base, items, teacher=teacher)))
        chosen = {name: known["batch"][name] for name in ("batch_tokens", "batch_rows")}
        recipe = with_train(recipe, chosen)
        on_note("batches of {batch_tokens} tokens, {batch_rows} rows an update".format(**chosen))
    if rate:
        if "rate" not in known:
            _keep(path, known, "rate", asdict(find_rate(recipe, base, items, teacher=teacher)))
        value = known["rate"]["learning_rate"]
        recipe = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"learning_rate": value})})
        on_note(f"learning rate {value:g}")
    return recipe


def _keep(path: Path, known: dict[str, Any], key: str, value: dict[str, Any]) -> None:
    """Durable before it takes effect."""
    known[key] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(".found.json")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(known, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
