"""Training of models with a head: a base, rows and a method through the one loop, and the model on disk."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from dialoop.chat.pairs import PairTexts
from dialoop.chat.plain import TextTokenizer
from dialoop.config.heads import AnyHeadRecipe, ClassifyRecipe, PairRecipe, TagRecipe
from dialoop.errors import TrainError
from dialoop.models.allocator import keep_freed_memory
from dialoop.models.encoder import attend_for_training, is_encoder, positions_of
from dialoop.models.head_config import HeadKind
from dialoop.models.headed_method import HeadedModel, attach_head
from dialoop.models.heads import Headed, by_length
from dialoop.train.batch import Batch
from dialoop.train.belonging import claim
from dialoop.train.head_loss import (
    ACCURACY,
    BinaryObjective,
    ChainObjective,
    HeadObjective,
    RankedObjective,
)
from dialoop.train.head_plan import PairPlan, RowPlan
from dialoop.train.head_rows import HeadRow, HeadRows, labelled_rows, pack_heads, tagged_rows
from dialoop.train.loop import Judge, Plan, Progress, Result, train
from dialoop.train.optim import Optimizer
from dialoop.train.world import world
from dialoop.types import Labelled, ModelRef, Pair, Tagged

FITS = ("fits",)
"""The one class of a scorer."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What a run left: the model's directory (None where it was interrupted, or in a process that does not
    write) and how it went.

    cut: rows that were longer than what is read of them.
    """

    result: Result
    artefact: ModelRef | None
    labels: tuple[str, ...]
    trained: int
    weights: int
    rows: int
    cut: int


class HeadPlan(Plan, Protocol):
    """A plan of epochs over rows that are all in memory."""

    per_epoch: int

    @property
    def rows(self) -> Sequence[object]: ...


@dataclass(frozen=True, slots=True)
class Lesson:
    """All that the loop needs of one kind of rows. held: the validation's batches."""

    labels: tuple[str, ...]
    plan: HeadPlan
    held: Sequence[Batch]
    cut: int
    rows: int
    kind: HeadKind = "sequence"


def classes_of(rows: Sequence[Labelled]) -> tuple[str, ...]:
    """The classes that training rows have, in alphabetical order."""
    return tuple(sorted({row.label for row in rows}))


def tags_of(rows: Sequence[Tagged]) -> tuple[str, ...]:
    """O first, and each kind of span whole, with its B and its I."""
    found = {tag for row in rows for tag in row.tags}
    spans = {tag[2:] for tag in found if tag[:2] in ("B-", "I-")}
    plain = sorted(tag for tag in found if tag[:2] not in ("B-", "I-") and tag != "O")
    return ("O", *plain, *(f"{place}-{kind}" for kind in sorted(spans) for place in "BI"))


def longest_text(folder: Path, max_length: int) -> int:
    """Tokens of a row: as the recipe says, or as many as the base has positions for."""
    from transformers import AutoConfig, AutoModel

    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
    if not is_encoder(folder):
        return min(max_length, int(config.get_text_config().max_position_embeddings))
    with torch.device("meta"):
        model: torch.nn.Module = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    return min(max_length, positions_of(model))


def teach(
    recipe: AnyHeadRecipe,
    base: ModelRef,
    rows: Sequence[Any],
    valid: Sequence[Any],
    folder: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Taught:
    """Train in `folder` (resuming what lies there) and write the model to `folder/artefact`.

    rows, valid: `Labelled`, `Pair` or `Tagged`, as the recipe's kind wants.
    Raises TrainError where `folder` holds another run.
    """
    keep_freed_memory()
    tokenizer = TextTokenizer(base.base)
    longest = longest_text(base.base, recipe.train.max_length)
    lesson = _lesson(recipe, rows, valid, tokenizer, longest)
    identity = {"rows": _fingerprint(lesson), "base_version": base.name}
    claim(folder, {**identity, **recipe.model_dump(mode="json")})
    crf = isinstance(recipe, TagRecipe) and recipe.crf
    model = attach_head(
        base, lesson.kind, lesson.labels, recipe.method, seed=recipe.train.seed, crf=crf,
        dropout=recipe.regularisation.dropout,
    )  # fmt: skip
    headed = Headed(model.model, base.base)
    if headed.pads:
        attend_for_training(headed.whole, longest)
    objective = _objective(recipe, headed, model)
    optimizer = Optimizer(model.weights, recipe.optim, ema=recipe.regularisation.ema)
    model.model.train()
    torch.manual_seed(recipe.train.seed)  # of dropout
    result = train(
        objective, optimizer, lesson.plan, folder,
        checkpoint_every=recipe.train.checkpoint_every,
        judge=_judge(recipe, objective, optimizer, lesson), on_progress=on_progress,
        tally=objective.tally,
    )  # fmt: skip
    model.model.eval()
    headed.release()
    writes = world().leads and not result.interrupted
    artefact = _written(model, folder / "artefact") if writes else None
    trained = sum(weight.numel() for weight in model.weights.values())
    total = sum(weight.numel() for weight in model.model.parameters())
    return Taught(result, artefact, lesson.labels, trained, total, lesson.rows, lesson.cut)


def _lesson(
    recipe: AnyHeadRecipe,
    rows: Sequence[Any],
    valid: Sequence[Any],
    tokenizer: TextTokenizer,
    max_length: int,
) -> Lesson:
    match recipe:
        case ClassifyRecipe():
            labels = classes_of(rows)
            made = (labelled_rows(part, labels, tokenizer, max_length) for part in (rows, valid))
            return _row_lesson(recipe, labels, *made, kind="sequence")
        case TagRecipe():
            labels = tags_of(rows)
            made = (tagged_rows(part, labels, tokenizer, max_length) for part in (rows, valid))
            return _row_lesson(recipe, labels, *made, kind="token")
        case PairRecipe():
            return _pair_lesson(recipe, rows, valid, PairTexts(tokenizer, max_length))


def _row_lesson(
    recipe: ClassifyRecipe | TagRecipe,
    labels: tuple[str, ...],
    rows: HeadRows,
    held: HeadRows,
    *,
    kind: HeadKind,
) -> Lesson:
    if len(labels) < 2:
        raise TrainError(f"all training rows have the class {labels[0]!r}: give rows of two classes at least")
    learnt, judged = (tuple(row for row in part.rows if row.places) for part in (rows, held))
    weights = _class_weights(recipe, learnt, len(labels))
    plan = RowPlan(learnt, recipe.train, recipe.optim, weights)
    lengths = [len(row.token_ids) for row in judged]
    packs = by_length(lengths, range(len(lengths)), recipe.train.batch_tokens)
    batches = [pack_heads([judged[i] for i in pack], weights) for pack in packs]
    return Lesson(labels, plan, batches, rows.cut, len(learnt), kind)


def _class_weights(recipe: AnyHeadRecipe, rows: Sequence[HeadRow], classes: int) -> list[float] | None:
    if recipe.regularisation.class_weights == "none":
        return None
    counts = Counter(number for row in rows for number in row.classes)
    total = sum(counts.values())
    return [total / (len(counts) * counts[i]) if counts[i] else 0.0 for i in range(classes)]


def _pair_lesson(recipe: PairRecipe, rows: Sequence[Pair], valid: Sequence[Pair], pairs: PairTexts) -> Lesson:
    if all(row.fits for row in rows) and not recipe.negatives:
        raise TrainError(
            "every answer fits: set negatives to 1 or more, or give rows whose answers do not fit"
        )
    ranked = recipe.loss == "in-batch"

    def plan_of(part: Sequence[Pair], **changes: Any) -> PairPlan:
        settings = recipe.train.model_copy(update=changes)
        return PairPlan(part, pairs, recipe.negatives, settings, recipe.optim, ranked=ranked)

    plan, held = plan_of(rows), plan_of(valid, epochs=1.0)
    batches = [batch for step in range(held.steps) for batch in held.batches(step)] if valid else []
    cut = sum(pairs.ids(text, row.answer)[1] for text, row in zip(plan.texts, rows, strict=True))
    return Lesson(FITS, plan, batches, cut, len(rows))


def _objective(recipe: AnyHeadRecipe, headed: Headed, model: HeadedModel) -> HeadObjective:
    held_back = recipe.regularisation
    if model.crf is not None:
        return ChainObjective(headed, held_back, model.crf)
    if isinstance(recipe, PairRecipe):
        ranked = recipe.loss == "in-batch"
        return RankedObjective(headed, held_back) if ranked else BinaryObjective(headed, held_back)
    return HeadObjective(headed, held_back)


def _judge(
    recipe: AnyHeadRecipe, objective: HeadObjective, optimizer: Optimizer, lesson: Lesson
) -> Judge | None:
    if not lesson.held:
        return None

    @torch.no_grad()
    def loss() -> float:
        objective.headed.whole.eval()
        with optimizer.judged():
            total = sum(float(objective(batch)) for batch in lesson.held)
        objective.headed.whole.train()
        return total / sum(float(batch.weights.sum()) for batch in lesson.held)

    by = ACCURACY if recipe.train.best_by == "accuracy" else ""
    return Judge(loss, recipe.train.eval_every or lesson.plan.per_epoch, recipe.train.patience, by)


def _written(model: HeadedModel, target: Path) -> ModelRef:
    shutil.rmtree(target, ignore_errors=True)
    return model.save(target)


def _fingerprint(lesson: Lesson) -> str:
    """sha256 (32 hex digits) of the training rows, and of the validation rows as the model sees them."""
    digest = hashlib.sha256()
    for row in lesson.plan.rows:
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
    for batch in lesson.held:
        digest.update(batch.token_ids.tobytes() + batch.targets.tobytes())
    return digest.hexdigest()[:32]
