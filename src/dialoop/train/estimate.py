"""What a tuning run will take, from a few real updates on a scratch copy, before anything is written."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import TuneRecipe
from dialoop.models.allocator import keep_freed_memory
from dialoop.train.batch import Batch
from dialoop.train.loop import Judge, Plan, Progress, train
from dialoop.train.peak import forget_peak, peak_bytes
from dialoop.train.tune import Assembled, Fitted, Items, assemble, read_rows
from dialoop.types import ModelRef

UPDATES = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a whole run; scoring before and after it is not counted.

    tokens: that all updates read; supervised: that all learn.  memory: bytes at most, the process's own
    included.  seconds: of rendering and loading, the updates, the validations and the checkpoints.
    updates: that were really made.
    """

    rows: Fitted
    epoch_rows: int
    tokens: int
    supervised: int
    steps: int
    validations: int
    trained: int
    weights: int
    memory: int
    seconds: float
    tokens_per_second: float
    updates: int


class _Sample:
    """Some updates of a plan, evenly by size: the largest last, when all that is kept lies in memory."""

    def __init__(self, plan: Plan, sizes: Sequence[int], count: int) -> None:
        order = np.argsort(sizes, kind="stable")
        places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
        self.plan, self.chosen = plan, [int(order[place]) for place in places]

    @property
    def steps(self) -> int:
        return len(self.chosen)

    def batches(self, step: int) -> Sequence[Batch]:
        return self.plan.batches(self.chosen[step])

    def rate(self, step: int) -> float:
        return self.plan.rate(self.chosen[step])


def estimate(
    recipe: TuneRecipe,
    base: ModelRef,
    items: Items,
    valid: Items,
    *,
    teacher: ModelRef | None = None,
    updates: int = UPDATES,
) -> Estimate:
    """Assemble the run, make `updates` of its updates in a folder that goes again, and reckon from them.

    items, valid, teacher: as `tune` takes them.
    """
    keep_freed_memory()
    started = time.perf_counter()
    rows, held = read_rows(recipe, base, items, valid)
    forget_peak()
    with tempfile.TemporaryDirectory(prefix="dialoop-estimate-") as scratch:
        made = assemble(recipe, base, rows, held, Path(scratch), teacher=teacher)
    preparing = time.perf_counter() - started
    sizes = [_size(made.plan.batches(step)) for step in range(made.plan.steps)]
    tokens, supervised = (sum(each) for each in zip(*sizes, strict=True))
    sample = _Sample(made.plan, [size for size, _ in sizes], updates)
    pace, first, saving, judging = _measure(made, sample)
    validations = _validations(made)
    saves = made.plan.steps // recipe.train.checkpoint_every + 1
    seconds = preparing + first + tokens * pace + saves * saving + validations * judging
    return Estimate(
        rows, _epoch_rows(made), tokens, supervised, made.plan.steps, validations, made.trained, made.weights,
        peak_bytes(), seconds, 1 / pace, sample.steps,
    )  # fmt: skip


def _size(batches: Sequence[Batch]) -> tuple[int, int]:
    """Tokens that an update reads, and learns."""
    read = sum(len(batch.token_ids) for batch in batches)
    return read, sum(int((batch.weights > 0).sum()) for batch in batches)


def _epoch_rows(made: Assembled) -> int:
    first = range(min(made.plan.per_epoch, made.plan.steps))
    return sum(batch.rows for step in first for batch in made.plan.batches(step))


def _validations(made: Assembled) -> int:
    """How many there will be, unless patience ends the run before."""
    judge, steps = made.judge, made.plan.steps
    if judge is None:
        return 0
    return -(-steps // judge.every) if judge.every else 1


def _measure(made: Assembled, sample: _Sample) -> tuple[float, float, float, float]:
    """Seconds a token of an update, of what the first one takes besides, of a checkpoint, of a validation."""
    seen: list[Progress] = []
    judge, judged = _timed(made.judge)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="dialoop-estimate-") as scratch:
        result = train(
            made.objective, made.optimizer, sample, Path(scratch),
            checkpoint_every=sample.steps + 1, judge=judge, on_progress=seen.append,
        )  # fmt: skip
    judging = sum(judged)
    saving = max(0.0, time.perf_counter() - started - result.seconds - judging)
    last = seen[-1]
    if len(seen) < 3:
        return last.seconds / last.tokens, 0.0, saving, judging
    first = seen[0]
    pace = (last.seconds - first.seconds) / (last.tokens - first.tokens)
    return pace, max(0.0, first.seconds - first.tokens * pace), saving, judging


def _timed(judge: Judge | None) -> tuple[Judge | None, list[float]]:
    """The same validation, once at the end; and the list that its seconds go to."""
    seconds: list[float] = []
    if judge is None:
        return None, seconds
    validate = judge.loss

    def loss() -> float:
        started = time.perf_counter()
        value = validate()
        seconds.append(time.perf_counter() - started)
        return value

    return Judge(loss, 0, 0), seconds


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a row as the model reads it. weight: of its tokens as targets, 0 = context only."""

    text: str
    weight: float


def pieces(rows: Fitted, base: ModelRef, count: int) -> list[list[Piece]]:
    """The first `count` rows as text, cut where the weight changes; of pairs one side after the other."""
    tokenizer = ChatTokenizer.load(base.base)
    texts = count * len(rows.rendered) // len(rows.rows)
    return [_pieces(row.token_ids, row.loss_mask, tokenizer) for row in rows.rendered[:texts]]


def _pieces(ids: Sequence[int], mask: Sequence[float], tokenizer: ChatTokenizer) -> list[Piece]:
    cuts = [0, *(i for i in range(1, len(ids)) if mask[i] != mask[i - 1]), len(ids)]
    return [Piece(tokenizer.decode(ids[a:b], skip_special=False), mask[a]) for a, b in pairwise(cuts)]
