"""Fine-tuning: a base, rows and a method through the one loop, and the tuned model on disk."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dialoop.chat.render import Rendered
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import (
    ContinueMethod,
    DistillObjective,
    DpoObjective,
    FreezeMethod,
    FullMethod,
    PreferenceObjective,
    TrainSettings,
    TuneRecipe,
)
from dialoop.data.mix import Mix
from dialoop.errors import TrainError
from dialoop.models.allocator import keep_freed_memory
from dialoop.models.load import load_model
from dialoop.models.method import Attached, method_of
from dialoop.models.packed import fill
from dialoop.models.quantised import quantise_frozen
from dialoop.train.batch import Batch, Ints
from dialoop.train.belonging import claim
from dialoop.train.distill import DistillLoss, load_teacher
from dialoop.train.fit import Rows, fit_rows
from dialoop.train.loop import Judge, Progress, Result, train
from dialoop.train.objective import Loss, Objective
from dialoop.train.optim import Optimizer, warm_decay
from dialoop.train.pairs import Pair, PairRows, fit_pairs, packed
from dialoop.train.preference import PreferenceLoss, referenced
from dialoop.train.sharding import Shards
from dialoop.train.world import world
from dialoop.types import Conversation, ModelRef, Preference

Items = Sequence[Conversation] | Sequence[Preference]
Fitted = Rows | PairRows


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a run left: the artefact (None where it was interrupted or another process writes it), and how it
    went.
    """

    result: Result
    artefact: ModelRef | None
    trained: int
    weights: int
    rows: Fitted


class RowsPlan:
    """Epochs of rows, each in its own order, packed into batches of at most `batch_tokens`.

    sources: where each row comes from, for mixing.  ends: the updates after which an epoch is done.
    """

    def __init__(
        self, rows: Sequence[Rendered | Pair], recipe: TuneRecipe, sources: Sequence[str] = ()
    ) -> None:
        self.rows, self.recipe = rows, recipe
        settings = recipe.train
        lengths = [row.size for row in rows]
        mix = Mix(sources or [""] * len(rows), lengths, recipe.data.mix, settings.seed)
        self.updates: list[list[list[int]]] = []
        self.per_epoch = 0
        self.ends: list[int] = []
        for epoch in range(math.ceil(settings.epochs)):
            grouped = _updates(lengths, mix.epoch(epoch), settings)
            self.per_epoch = self.per_epoch or len(grouped)
            share = min(1.0, settings.epochs - epoch)
            self.updates += grouped[: max(1, round(share * len(grouped)))]
            self.ends.append(len(self.updates))

    @property
    def steps(self) -> int:
        return len(self.updates)

    def batches(self, step: int) -> Sequence[Batch]:
        return [packed([self.rows[i] for i in rows]) for rows in self.updates[step]]

    def rate(self, step: int) -> float:
        return warm_decay(step, self.steps, self.recipe.optim)


def _updates(lengths: Sequence[int], order: Ints, settings: TrainSettings) -> list[list[list[int]]]:
    """One epoch: for each update its batches, each a list of rows."""
    capacity = settings.batch_tokens if settings.packing else 0
    if (size := settings.batch_rows) is not None:
        shares = [order[i : i + size] for i in range(0, len(order), size)]
        return [fill(lengths, share, capacity) for share in shares]
    packs = fill(lengths, order, capacity)
    return [packs[i : i + settings.accumulate] for i in range(0, len(packs), settings.accumulate)]


def tune(
    recipe: TuneRecipe,
    base: ModelRef,
    items: Items,
    valid: Items,
    folder: Path,
    *,
    teacher: ModelRef | None = None,
    on_rows: Callable[[Fitted], None] = lambda rows: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[Progress, Path], None] | None = None,
) -> Tuned:
    """Train in `folder` (resuming what lies there) and write the artefact to `folder/artefact`.

    items, valid: preferences where the objective learns from pairs, else conversations.  teacher: that of
    `distill`.  on_rows: gets what the items became.  on_epoch: gets the directory of what each epoch but the
    last made; None = nothing is written between.
    Raises TrainError where `folder` holds another run, or a row has nothing to learn.
    """
    keep_freed_memory()
    rows, held = read_rows(recipe, base, items, valid)
    # How a run is judged and told may change.
    settings = recipe.model_dump(mode="json", exclude={"eval", "search", "tracking"})
    claim(folder, {"rows": _fingerprint((rows, held)), "base_version": base.name, **settings})
    on_rows(rows)
    made = assemble(recipe, base, rows, held, folder, teacher=teacher)

    def told(progress: Progress) -> None:
        on_progress(progress)
        if on_epoch is not None and progress.step in made.plan.ends[:-1]:
            written = folder / "epochs" / f"step-{progress.step:08d}"
            _write(made.attached, written)
            on_epoch(progress, written)

    result = train(
        made.objective, made.optimizer, made.plan, folder,
        checkpoint_every=recipe.train.checkpoint_every, judge=made.judge, on_progress=told,
        tally=made.objective.tally,
    )  # fmt: skip
    made.attached.model.eval()
    made.objective.body.release()
    if made.shards is not None:
        made.shards.gather()
    writes = world().leads and not result.interrupted
    artefact = _write(made.attached, folder / "artefact") if writes else None
    return Tuned(result, artefact, made.trained, made.weights, rows)


def read_rows(recipe: TuneRecipe, base: ModelRef, items: Items, valid: Items) -> tuple[Fitted, Fitted | None]:
    """The rows to train on and to validate on, as `base` sees them."""
    tokenizer = ChatTokenizer.load(base.base)
    rows = _fitted(recipe, tokenizer, items)
    return rows, _fitted(recipe, tokenizer, valid) if valid else None


@dataclass(frozen=True, slots=True)
class Assembled:
    """All that the loop takes: a model in training mode with its method, and what it learns when.

    trained, weights: how many the method trains, and how many the model has, the method's included.
    """

    attached: Attached
    objective: Loss
    optimizer: Optimizer
    plan: RowsPlan
    judge: Judge | None
    trained: int
    weights: int
    shards: Shards | None = None


def assemble(
    recipe: TuneRecipe,
    base: ModelRef,
    rows: Fitted,
    held: Fitted | None,
    folder: Path,
    *,
    teacher: ModelRef | None = None,
) -> Assembled:
    """Load the base, attach the method, seed what is drawn; the same every time.

    folder: keeps what `dpo` holds the model to.  teacher: that of `distill`.
    """
    goes_on = isinstance(recipe.method, ContinueMethod)
    model = load_model(replace(base, adapter=None) if goes_on else base, merge=True)
    attached = method_of(recipe.method).attach(model, base, seed=recipe.train.seed)
    trained, weights = (
        sum(weight.numel() for weight in group)
        for group in (attached.weights.values(), attached.model.parameters())
    )
    if not isinstance(recipe.method, FullMethod | FreezeMethod):
        quantise_frozen(attached.model, recipe.method.base_precision, attached.weights.values())
    objective = _objective(recipe, attached.model, base, teacher)
    rows, held = _referenced(recipe, objective, rows, held, folder)
    apart = world().size > 1 and recipe.train.parallel == "shard"
    shards = Shards(attached.model, attached.weights) if apart else None
    learnt = attached.weights if shards is None else shards.weights
    optimizer = Optimizer(learnt, recipe.optim, ema=recipe.regularisation.ema)
    plan = RowsPlan(rows.rows, recipe, rows.sources)
    attached.model.train()
    torch.manual_seed(recipe.train.seed)  # of dropout
    judge = _judge(recipe, objective, optimizer, held, plan)
    return Assembled(attached, objective, optimizer, plan, judge, trained, weights, shards)


def _fitted(recipe: TuneRecipe, tokenizer: ChatTokenizer, items: Items) -> Fitted:
    length = recipe.train.max_length
    if isinstance(recipe.objective, PreferenceObjective):
        pairs = [item for item in items if isinstance(item, Preference)]
        return fit_pairs(pairs, tokenizer, max_length=length)
    dialogues = [item for item in items if isinstance(item, Conversation)]
    return fit_rows(dialogues, tokenizer, max_length=length, mask=recipe.train.mask)


def _objective(recipe: TuneRecipe, model: nn.Module, base: ModelRef, teacher: ModelRef | None) -> Loss:
    noise = recipe.regularisation.neftune
    if isinstance(recipe.objective, PreferenceObjective):
        return PreferenceLoss(model, recipe.objective, noise)
    if isinstance(recipe.objective, DistillObjective):
        if teacher is None:
            raise TrainError("objective.kind = 'distill' came without a teacher's model: give one")
        taught = load_teacher(teacher, ChatTokenizer.load(base.base))
        return DistillLoss(model, taught, recipe.objective, noise)
    return Objective(model, recipe.regularisation)


def _referenced(
    recipe: TuneRecipe, objective: Loss, rows: Fitted, held: Fitted | None, run: Path
) -> tuple[Fitted, Fitted | None]:
    """The rows with what `dpo` holds them to."""
    sets = [each for each in (rows, held) if isinstance(each, PairRows)]
    if not (sets and isinstance(recipe.objective, DpoObjective)):
        return rows, held
    opened = isinstance(recipe.method, ContinueMethod)
    first, *rest = referenced(
        objective.body, sets, run / "reference", recipe.train.batch_tokens, opened=opened
    )
    return first, rest[0] if rest else None


def _judge(
    recipe: TuneRecipe,
    objective: Loss,
    optimizer: Optimizer,
    held: Fitted | None,
    plan: RowsPlan,
) -> Judge | None:
    if held is None:
        return None
    packs = fill([row.size for row in held.rows], range(len(held.rows)), recipe.train.batch_tokens)
    batches = [packed([held.rows[i] for i in rows]) for rows in packs]

    @torch.no_grad()
    def loss() -> float:
        objective.model.eval()
        with optimizer.judged():
            total = sum(float(objective(batch)) for batch in batches)
        objective.model.train()
        return total / sum(batch.worth for batch in batches)

    settings = recipe.train
    evenly = math.ceil(plan.steps / settings.validations) if settings.validations else 0
    return Judge(loss, evenly or settings.eval_every or plan.per_epoch, settings.patience)


def _write(attached: Attached, target: Path) -> ModelRef:
    shutil.rmtree(target, ignore_errors=True)
    return attached.save(target)


def _fingerprint(data: Sequence[Fitted | None]) -> str:
    """sha256 (32 hex digits) of the training and validation rows as the model sees them."""
    digest = hashlib.sha256()
    for rows in data:
        for row in () if rows is None else rows.rendered:
            digest.update(np.asarray([row.size, *row.token_ids], np.int64).tobytes())
            digest.update(np.asarray(row.loss_mask, np.float32).tobytes())
        digest.update(b"end")
    return digest.hexdigest()[:32]
