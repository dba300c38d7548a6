"""Dialogues in, a measured and registered model out."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from dialoop import __version__
from dialoop.config import DistillObjective, PreferenceObjective, TuneRecipe
from dialoop.data.dataset import Dataset, load_dataset, load_preferences
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
from dialoop.jobs.judging import Cases, choose_cases, judge, judge_pairs
from dialoop.store.registry import ModelVersion, Store
from dialoop.train.loop import Progress, read_journal
from dialoop.train.tune import Tuned, tune
from dialoop.types import Conversation, ModelRef, Preference


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
class _Given:
    """What a run begins with. learnt: the rows that it trains on.  dataset: the dialogues in them."""

    base: ModelRef
    teacher: ModelRef | None
    learnt: Dataset[Any]
    dataset: Dataset[Conversation]

    @property
    def pairs(self) -> tuple[Preference, ...]:
        """Test rows that have two answers."""
        return tuple(row for row in self.learnt.test if isinstance(row, Preference))


def run_tuning(recipe: TuneRecipe, home: Path, folder: Path, command: str, watch: Watch) -> Finished:
    """Read, judge before, train, judge after, report, register. An interrupted run resumes in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with Store.open(home) as store:
        given = _given(store, recipe, folder, watch)
        dataset = given.dataset
        run = store.runs.start(
            "tune", recipe.model_dump(mode="json"), {"data": dataset.content_hash, "base": given.base.name}
        )
        try:
            finished = _work(recipe, given, folder, command, watch)
        except BaseException:
            store.runs.finish(run.id, "failed", {})
            raise
        if finished.report is None or finished.tuned.artefact is None:
            store.runs.finish(run.id, "cancelled", {"step": finished.tuned.result.step})
            return finished
        return _register(store, recipe, run.id, dataset, finished)


def _given(store: Store, recipe: TuneRecipe, folder: Path, watch: Watch) -> _Given:
    base, objective = store.models.resolve(recipe.base), recipe.objective
    teacher = store.models.resolve(objective.teacher) if isinstance(objective, DistillObjective) else None
    watch.step(1, "data")
    learnt, dataset = _read(recipe, folder / "scratch")
    watch.data(dataset)
    _check(dataset, recipe)
    return _Given(base, teacher, learnt, dataset)


def _read(recipe: TuneRecipe, scratch: Path) -> tuple[Dataset[Any], Dataset[Conversation]]:
    """The rows that are learnt, and the dialogues in them: of preferences those with the chosen answer."""
    if isinstance(recipe.objective, PreferenceObjective):
        pairs = load_preferences(recipe.data, scratch=scratch)
        return pairs, pairs.each(lambda pair: pair.conversation)
    rows = load_dataset(recipe.data, scratch=scratch)
    return rows, rows


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


def _judge(ref: ModelRef, chosen: Cases, given: _Given, recipe: TuneRecipe, watch: Watch) -> _Judged:
    outcomes = judge(ref, chosen, recipe.eval, watch.done)
    return _Judged(outcomes, judge_pairs(ref, given.pairs, watch.done) if given.pairs else ())


def _work(recipe: TuneRecipe, given: _Given, folder: Path, command: str, watch: Watch) -> Finished:
    learnt, dataset = given.learnt, given.dataset
    chosen = choose_cases(dataset.test, recipe.eval)
    watch.step(2, "before")
    before = _judge(given.base, chosen, given, recipe, watch)
    watch.step(3, "training")
    tuned = tune(
        recipe, given.base, learnt.train, learnt.valid, folder, teacher=given.teacher,
        on_progress=watch.training,
    )  # fmt: skip
    if tuned.artefact is None:
        return Finished(folder, tuned)
    watch.step(4, "after")
    after = _judge(tuned.artefact, chosen, given, recipe, watch)
    watch.step(5, "report")
    nearest = run_cases(chosen.asked, index(cases(dataset.train)).generate)
    identity = _identity(recipe, given.base, dataset, command)
    sides = (before.outcomes, after.outcomes, nearest)
    further = _preferred(given, before, after, recipe)
    report = _report(sides, recipe, dataset, identity, folder, dataset.leaked.share, further)
    write(report, folder)
    free = _near_free(sides, recipe, dataset, identity, folder)
    return Finished(folder, tuned, None, report, free)


def _preferred(given: _Given, before: _Judged, after: _Judged, recipe: TuneRecipe) -> tuple[Row, ...]:
    if not given.pairs:
        return ()
    how = {"resamples": recipe.eval.resamples, "seed": recipe.eval.seed}
    return preference_rows(given.pairs, before.preferred, after.preferred, **how)


def _report(
    sides: Sequence[tuple[Outcome, ...]],
    recipe: TuneRecipe,
    dataset: Dataset[Conversation],
    identity: Identity,
    folder: Path,
    leaked: float,
    further: Sequence[Row] = (),
) -> Report:
    before, after, nearest = sides
    return build(
        before, after, nearest=nearest, identity=identity,
        curves=[dict(row) for row in read_journal(folder / "metrics.jsonl")],
        skipped=unasked(dataset.test), resamples=recipe.eval.resamples, seed=recipe.eval.seed,
        leaked=leaked, further=further,
    )  # fmt: skip


def _near_free(
    sides: Sequence[tuple[Outcome, ...]],
    recipe: TuneRecipe,
    dataset: Dataset[Conversation],
    identity: Identity,
    folder: Path,
) -> Report | None:
    """The same report on the test rows that have no near-duplicate in the training rows."""
    if not dataset.leaked.share:
        return None
    free = near_free(dataset.test, dataset.train, threshold=recipe.data.clean.near_threshold)
    kept = {case.history.messages for case in cases(free)} if free else set()
    parts = [tuple(o for o in side if o.case.history.messages in kept) for side in sides]
    if not any(outcome.answer is not None for outcome in parts[0]):
        return None
    report = _report(parts, recipe, dataset, identity, folder, 0.0)
    write(report, folder / "near-free")
    return report


def _register(
    store: Store, recipe: TuneRecipe, run_id: str, dataset: Dataset[Conversation], finished: Finished
) -> Finished:
    report, artefact = finished.report, finished.tuned.artefact
    if report is None or artefact is None:
        return finished
    metrics, settings = summary(report), recipe.model_dump(mode="json")
    made = store.models.register(
        recipe.name, recipe.method.kind, artefact.adapter or artefact.base,
        base=recipe.base, data_hash=dataset.content_hash, recipe=settings, metrics=metrics, run_id=run_id,
    )  # fmt: skip
    folder = archive(finished.folder, made.ref, store.home)
    store.reports.add("before-after", made.ref, metrics, path=folder / "report.html", run_id=run_id)
    store.runs.finish(run_id, "completed", metrics)
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


def _identity(recipe: TuneRecipe, base: ModelRef, dataset: Dataset[Conversation], command: str) -> Identity:
    return Identity(
        base=base.name,
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

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{platform.machine()}, {sys.platform}, {torch.get_num_threads()} threads, {device}"
