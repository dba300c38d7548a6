"""Rows in, a measured and registered model with a head out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from dialoop import __version__
from dialoop.config.heads import AnyHeadRecipe, ClassifyRecipe, PairRecipe, TagRecipe
from dialoop.data.dataset import Dataset
from dialoop.data.head_dataset import load_head_dataset
from dialoop.data.head_rows import LABELLED, PAIRED, TAGGED
from dialoop.errors import DataError
from dialoop.evals.head_report import HeadReport, write
from dialoop.jobs.head_judging import judge_classes, judge_pairs, judge_tags
from dialoop.jobs.registering import register
from dialoop.jobs.tuning import archive, hardware
from dialoop.store.registry import ModelVersion, Store
from dialoop.train.heads import Taught, teach
from dialoop.train.loop import Progress
from dialoop.types import ModelRef


class HeadWatch(Protocol):
    """Sees the work go on."""

    def step(self, number: int, title: str) -> None: ...

    def rows(self, dataset: Dataset[Any]) -> None: ...

    def training(self, progress: Progress) -> None: ...


STEPS = 3
Judging = Callable[[Any, Dataset[Any], ModelRef, ModelRef, Mapping[str, Any]], HeadReport]


@dataclass(frozen=True, slots=True)
class Finished:
    """version and report are None where the run was interrupted."""

    folder: Path
    taught: Taught
    version: ModelVersion | None = None
    report: HeadReport | None = None


def run_head(recipe: AnyHeadRecipe, home: Path, folder: Path, command: str, watch: HeadWatch) -> Finished:
    """Read, train, judge beside baselines, register. An interrupted run resumes in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with Store.open(home) as store:
        base = store.models.resolve(recipe.base)
        watch.step(1, "rows")
        dataset = read_rows(recipe, folder / "scratch")
        watch.rows(dataset)
        run = store.runs.start(
            recipe.kind, recipe.model_dump(mode="json"), {"data": dataset.content_hash, "base": base.name}
        )
        try:
            watch.step(2, "training")
            taught = teach(recipe, base, dataset.train, dataset.valid, folder, on_progress=watch.training)
            if taught.artefact is None:
                store.runs.finish(run.id, "cancelled", {"step": taught.result.step})
                return Finished(folder, taught)
            watch.step(3, "judging")
            report = _judged(
                recipe, dataset, base, taught.artefact, _identity(recipe, base, dataset, command)
            )
            write(report, folder)
        except BaseException:
            store.runs.finish(run.id, "failed", {})
            raise
        return _register(store, recipe, run.id, dataset, Finished(folder, taught, None, report))


def read_rows(recipe: AnyHeadRecipe, scratch: Path) -> Dataset[Any]:
    """The recipe's rows. Raises DataError where there is nothing to train on or to test on."""
    found: Dataset[Any]
    match recipe:
        case ClassifyRecipe():
            found = load_head_dataset(recipe.data, LABELLED, scratch=scratch)
        case PairRecipe():
            found = load_head_dataset(recipe.data, PAIRED, scratch=scratch)
        case TagRecipe():
            found = load_head_dataset(recipe.data, TAGGED, scratch=scratch)
    if not found.train or not found.test:
        raise DataError(
            f"{len(found.train)} rows to train on and {len(found.test)} to test on "
            f"(split: {found.split_rule}): give more data, or other shares in data.split"
        )
    return found


def _judged(
    recipe: AnyHeadRecipe,
    dataset: Dataset[Any],
    base: ModelRef,
    made: ModelRef,
    identity: Mapping[str, Any],
) -> HeadReport:
    judges: Mapping[str, Judging] = {"classify": judge_classes, "pair": judge_pairs, "tag": judge_tags}
    return judges[recipe.kind](recipe, dataset, base, made, identity)


def _register(
    store: Store, recipe: AnyHeadRecipe, run_id: str, dataset: Dataset[Any], finished: Finished
) -> Finished:
    report, artefact = finished.report, finished.taught.artefact
    assert report is not None
    assert artefact is not None
    metrics = report.summary()
    made = register(
        store, recipe, recipe.name, artefact.base, base=recipe.base, data_hash=dataset.content_hash,
        metrics=metrics, run_id=run_id,
    )  # fmt: skip
    folder = archive(finished.folder, made.ref, store.home)
    store.reports.add("before-after", made.ref, metrics, path=folder / "report.md", run_id=run_id)
    store.runs.finish(run_id, "completed", metrics)
    return replace(finished, folder=folder, version=made)


def _identity(recipe: AnyHeadRecipe, base: ModelRef, dataset: Dataset[Any], command: str) -> dict[str, Any]:
    names: Sequence[str] = ("torch", "transformers", "scikit-learn", "seqeval")
    leaked = dataset.leaked
    return {
        "base": base.name,
        "model": recipe.name,
        "method": recipe.method.kind,
        "data": dataset.content_hash,
        "split": dataset.split_rule,
        "leaks": f"{len(leaked.exact)} exact and {len(leaked.near)} near-duplicates of training rows among "
        f"{leaked.rows} test rows",
        "seed": recipe.train.seed,
        "command": command,
        "machine": hardware(),
        "versions": {"dialoop": __version__, "python": platform.python_version()}
        | {name: version(name) for name in names},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
