"""Dialogues in, a measured and registered model out."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from dialoop import __version__
from dialoop.config import TuneRecipe
from dialoop.data.dataset import Dataset
from dialoop.data.leak import near_free
from dialoop.errors import DataError
from dialoop.evals.compare import Comparison
from dialoop.evals.headline import headline
from dialoop.evals.nearest import index
from dialoop.evals.preferences import Likelihoods, preference_rows
from dialoop.evals.report import Identity, Report, Row, build
from dialoop.evals.task import Outcome, cases, unasked
from dialoop.evals.task import run as run_cases
from dialoop.evals.written import write
from dialoop.jobs.curves import stored_curve, write_curves
from dialoop.jobs.given import Given, given
from dialoop.jobs.judging import Cases, judge_pairs
from dialoop.jobs.registering import register
from dialoop.jobs.under_test import under_test
from dialoop.store.registry import ModelVersion, Store
from dialoop.train.finders import found
from dialoop.train.loop import Progress, read_journal
from dialoop.train.tracking import tracked
from dialoop.train.tune import Tuned, tune
from dialoop.types import Conversation, ModelRef


class Watch(Protocol):
    """Sees the work go on."""

    def step(self, number: int, title: str) -> None: ...

    def data(self, dataset: Dataset[Any]) -> None: ...

    def done(self, what: str, done: int, total: int) -> None: ...

    def training(self, progress: Progress) -> None: ...


STEPS = 5


@dataclass(frozen=True, slots=True)
class Finished:
    """version and report are None where the run was interrupted; `near_free` where no test row leaked."""

    folder: Path
    tuned: Tuned
    version: ModelVersion | None = None
    report: Report | None = None
    near_free: Report | None = None


@dataclass(frozen=True, slots=True)
class Find:
    """What a run finds out for itself before it trains."""

    rate: bool = False
    batch: bool = False
    on_note: Callable[[str], None] = lambda note: None


NOTHING = Find()


def run_tuning(
    recipe: TuneRecipe, home: Path, folder: Path, command: str, watch: Watch, find: Find = NOTHING
) -> Finished:
    """Read, judge before, train, judge after, report, register. An interrupted run resumes in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with Store.open(home) as store:
        watch.step(1, "data")
        known = given(store, recipe, folder / "scratch")
        dataset = known.dataset
        watch.data(dataset)
        _check(dataset, recipe)
        chosen = known.cases()
        recipe = found(
            known.recipe, known.base, known.learnt.train, folder, teacher=known.teacher,
            rate=find.rate, batch=find.batch, on_note=find.on_note,
        )  # fmt: skip
        run = store.runs.start(
            "tune", recipe.model_dump(mode="json"), {"data": dataset.content_hash, "base": known.base.name}
        )
        try:
            finished = _work(recipe, known, chosen, folder, command, watch)
        except BaseException:
            store.runs.finish(run.id, "failed", {})
            raise
        if finished.report is None or finished.tuned.artefact is None:
            done = {"step": finished.tuned.result.step, "curve": stored_curve(folder)}
            store.runs.finish(run.id, "cancelled", done)
            return finished
        return _register(store, recipe, run.id, dataset, finished)


def _check(dataset: Dataset[Conversation], recipe: TuneRecipe) -> None:
    if not dataset.train or not dataset.test:
        raise DataError(
            f"{len(dataset.train)} conversations to train on and {len(dataset.test)} to test on "
            f"(split: {dataset.split_rule}): give more data, or other shares in data.split"
        )


@dataclass(frozen=True, slots=True)
class _Judged:
    """What one model made of the test rows."""

    outcomes: tuple[Outcome, ...]
    preferred: Likelihoods


def _judge(ref: ModelRef, chosen: Cases, known: Given, recipe: TuneRecipe, watch: Watch) -> _Judged:
    with closing(under_test(ref, known.task, recipe.eval, watch.done)) as model:
        outcomes = model.outcomes(chosen)
    return _Judged(outcomes, judge_pairs(ref, known.pairs, watch.done) if known.pairs else ())


def _work(
    recipe: TuneRecipe, known: Given, chosen: Cases, folder: Path, command: str, watch: Watch
) -> Finished:
    learnt, dataset = known.learnt, known.dataset
    watch.step(2, "before")
    before = _judge(known.base, chosen, known, recipe, watch)
    watch.step(3, "training")
    with tracked(recipe.tracking, recipe.name, folder, recipe.model_dump(mode="json")) as track:

        def told(progress: Progress) -> None:
            watch.training(progress)
            track(progress)

        tuned = tune(
            recipe, known.base, learnt.train, learnt.valid, folder, teacher=known.teacher, on_progress=told
        )
    write_curves(folder, recipe.name)
    if tuned.artefact is None:
        return Finished(folder, tuned)
    watch.step(4, "after")
    after = _judge(tuned.artefact, chosen, known, recipe, watch)
    watch.step(5, "report")
    nearest = run_cases(chosen.asked, index(cases(dataset.train)).generate)
    identity = _identity(recipe, known, command)
    sides = (before.outcomes, after.outcomes, nearest)
    further = _preferred(known, before, after, recipe)
    report = _report(sides, recipe, known, identity, folder, dataset.leaked.share, further)
    write(report, folder)
    free = _near_free(sides, recipe, known, identity, folder)
    return Finished(folder, tuned, None, report, free)


def _preferred(known: Given, before: _Judged, after: _Judged, recipe: TuneRecipe) -> tuple[Row, ...]:
    if not known.pairs:
        return ()
    how = {"resamples": recipe.eval.resamples, "seed": recipe.eval.seed}
    return preference_rows(known.pairs, before.preferred, after.preferred, **how)


def _report(
    sides: Sequence[tuple[Outcome, ...]],
    recipe: TuneRecipe,
    known: Given,
    identity: Identity,
    folder: Path,
    leaked: float,
    further: Sequence[Row] = (),
) -> Report:
    before, after, nearest = sides
    return build(
        before, after, nearest=nearest, identity=identity,
        curves=[dict(row) for row in read_journal(folder / "metrics.jsonl")],
        skipped=unasked(known.dataset.test), resamples=recipe.eval.resamples, seed=recipe.eval.seed,
        leaked=leaked, further=further, task=known.task,
    )  # fmt: skip


def _near_free(
    sides: Sequence[tuple[Outcome, ...]],
    recipe: TuneRecipe,
    known: Given,
    identity: Identity,
    folder: Path,
) -> Report | None:
    """The same report on the test rows that have no near-duplicate in the training rows."""
    dataset = known.dataset
    if not dataset.leaked.share:
        return None
    free = near_free(dataset.test, dataset.train, threshold=recipe.data.clean.near_threshold)
    kept = {case.history.messages for case in cases(free)} if free else set()
    parts = [tuple(o for o in side if o.case.history.messages in kept) for side in sides]
    if not any(outcome.answer is not None for outcome in parts[0]):
        return None
    report = _report(parts, recipe, known, identity, folder, 0.0)
    write(report, folder / "near-free")
    return report


def _register(
    store: Store, recipe: TuneRecipe, run_id: str, dataset: Dataset[Conversation], finished: Finished
) -> Finished:
    report, artefact = finished.report, finished.tuned.artefact
    if report is None or artefact is None:
        return finished
    metrics = summary(report)
    made = register(
        store, recipe, recipe.name, artefact.adapter or artefact.base,
        base=recipe.base, data_hash=dataset.content_hash, metrics=metrics, run_id=run_id,
    )  # fmt: skip
    curve = stored_curve(finished.folder)
    folder = archive(finished.folder, made.ref, store.home)
    store.reports.add("before-after", made.ref, metrics, path=folder / "report.html", run_id=run_id)
    store.runs.finish(run_id, "completed", {**metrics, "curve": curve})
    return replace(finished, folder=folder, version=made)


def archive(folder: Path, ref: str, home: Path) -> Path:
    """A finished run of the home makes room for the next of its name; a folder of the user's stays."""
    target = folder.with_name(ref)
    if folder.resolve().parent != home.resolve() / "runs" or target.exists():
        return folder
    return folder.rename(target)


def summary(report: Report) -> dict[str, Any]:
    """The headline and each metric's values by language, as JSON; what is not a finite number is null."""
    rows = {
        language: {row.change.metric: _values(row.change) for row in report.of(language)}
        for language in report.languages
    }
    return {"headline": headline(report), "metrics": rows, "cases": report.cases}


def _values(change: Comparison) -> dict[str, float | None]:
    values = {"before": change.before, "after": change.after, "low": change.low, "high": change.high}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _identity(recipe: TuneRecipe, known: Given, command: str) -> Identity:
    dataset, prompt = known.dataset, recipe.data.prompt
    return Identity(
        base=known.base.name,
        model=recipe.name,
        method=_method(recipe),
        dataset_hash=dataset.content_hash,
        split_rule=dataset.split_rule,
        seeds={"train": recipe.train.seed, "split": recipe.data.split.seed, "eval": recipe.eval.seed},
        decoding={"temperature": 0, "max_tokens": recipe.eval.max_tokens},
        versions=versions(),
        hardware=hardware(),
        command=command,
        leak_check=dataset.leaked.words,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        more={} if prompt is None else {"prompt": prompt.name},
    )


def _method(recipe: TuneRecipe) -> str:
    objective = recipe.objective.kind
    return recipe.method.kind if objective == "sft" else f"{recipe.method.kind}, {objective}"


def versions() -> dict[str, str]:
    """Of what computes and counts, for reports."""
    known = {"dialoop": __version__, "python": platform.python_version()}
    return known | {name: version(name) for name in ("torch", "transformers", "peft", "sacrebleu")}


def hardware() -> str:
    """Processor, cores and device, for reports."""
    import torch

    from dialoop.models.load import default_device

    device = default_device()
    if device.startswith("cuda"):
        device = torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {sys.platform}, {torch.get_num_threads()} threads, {device}"
