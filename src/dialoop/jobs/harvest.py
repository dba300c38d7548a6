"""What a run directory says, taken into the store: progress, checkpoints, and the model at the end."""

from __future__ import annotations

import contextlib
import csv
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dialoop.config.kinds import TunedRecipe, tuned_recipe
from dialoop.errors import StoreError
from dialoop.jobs.asked import names_of
from dialoop.jobs.registering import register
from dialoop.jobs.run_directory import RunDirectory
from dialoop.store.fine_tuning import Job, NewEvent
from dialoop.store.identity import now_micros
from dialoop.store.models import ModelVersion
from dialoop.store.pages import Window
from dialoop.store.registry import Store

KEPT = 3
"""Checkpoints of a job that stay, the last model among them, as at OpenAI."""
COLUMNS: Mapping[str, Sequence[str]] = {
    "supervised": ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"),
    "dpo": (
        "step", "train_loss", "train_preference_accuracy", "train_reward_margin",
        "valid_loss", "valid_preference_accuracy", "valid_reward_margin",
    ),
    "head": ("step", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"),
}  # fmt: skip
"""Of result files: OpenAI's, and ours where it names none."""


class Offer(Protocol):
    """Serves models that were made while it runs."""

    def offer(self, project: str, version: ModelVersion) -> None: ...

    def withdraw(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Harvest:
    """The run of one job. store: of its project."""

    store: Store
    run: RunDirectory
    offered: Offer
    organization: str

    def progress(self, job: Job) -> None:
        """Take in what was told since, unless the job does not run any more."""
        heard, read = self.run.heard(job.read)
        if not heard:
            return
        steps = [event for event in heard if event["kind"] == "progress" and event["step"] > job.step]
        for event in heard:
            if event["kind"] == "checkpoint":
                self._checkpoint(job, event)
        values: dict[str, Any] = {"read": read}
        if steps:
            last = steps[-1]
            finish = now_micros() + int(last["seconds_left"] * 1_000_000)
            values |= {"step": last["step"], "steps": last["steps"], "estimated_finish": finish, "falls": 0}
        self.store.jobs.change(job.id, ["running"], list(_events(heard, job.step)), **values)

    def publish(self, job: Job, result: Mapping[str, Any]) -> None:
        """Register and serve what a finished run made, then tell; undone for a job cancelled meanwhile.

        May be done again after a fall: what was done before is kept.
        """
        recipe = tuned_recipe(job.recipe or {})
        name, alias = names_of(job, self.organization)
        steps = self.run.steps()
        made = self._register(job, recipe, name, alias, self.run.path / "artefact", result)
        self.offered.offer(job.project_id, made)
        self.store.jobs.add_checkpoint(job.id, result["step"], alias, _metrics(steps[-1]))
        self._forget_old(job)
        file_id = self._result_file(job, steps)
        finished = self.store.jobs.change(
            job.id, ["running"], [
                NewEvent(f"New fine-tuned model created: {alias}"),
                NewEvent("The job has successfully completed"),
            ],
            status="succeeded", fine_tuned_model=alias, trained_tokens=result["tokens"],
            finished=now_micros(), estimated_finish=None, result_files=[file_id],
        )  # fmt: skip
        if finished is None:
            self.store.files.delete(file_id)
            self._remove(alias)

    def _checkpoint(self, job: Job, event: Mapping[str, Any]) -> None:
        """Register the model of an epoch's end, which answers from now on."""
        folder = self.run.path / "epochs" / event["folder"]
        if not folder.is_dir():
            return  # registered before a fall
        name, alias = names_of(job, self.organization)
        step = event["step"]
        alias = f"{alias}:ckpt-step-{step}"
        recipe = tuned_recipe(job.recipe or {})
        made = self._register(job, recipe, f"{name}-step-{step}", alias, folder, {})
        self.offered.offer(job.project_id, made)
        self.store.jobs.add_checkpoint(job.id, step, alias, _metrics(event))
        self._forget_old(job)
        shutil.rmtree(folder)

    def _register(
        self, job: Job, recipe: TunedRecipe, name: str, alias: str, folder: Path, result: Mapping[str, Any]
    ) -> ModelVersion:
        known = [version for version in self.store.models.list() if version.alias == alias]
        if known:
            return known[0]
        return register(
            self.store, recipe, name, folder, base=job.base, data_hash=job.training_file,
            metrics=dict(result), alias=alias,
        )  # fmt: skip

    def _forget_old(self, job: Job) -> None:
        """One that an adapter lies on stays."""
        for old in self.store.jobs.checkpoints(job.id, Window(100)).items[KEPT:]:
            with contextlib.suppress(StoreError):
                self._remove(old.model)
                self.store.jobs.drop_checkpoint(old.model)

    def _remove(self, alias: str) -> None:
        self.store.models.remove(alias)
        self.offered.withdraw(alias)

    def _result_file(self, job: Job, steps: Iterable[Mapping[str, Any]]) -> str:
        """The steps as a CSV file of the project."""
        path = self.run.path / "step_metrics.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            columns = COLUMNS[job.method if tuned_recipe(job.recipe or {}).kind == "tune" else "head"]
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(map(_row, steps))
        file_id = "file" + job.id.removeprefix("ftjob")
        made = self.store.files.adopt(
            path, filename="step_metrics.csv", purpose="fine-tune-results", file_id=file_id
        )
        return made.id


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of an update, under the names of a result file too."""
    metrics = _metrics(event)
    return {"train_accuracy": metrics.get("train_mean_token_accuracy"), **metrics}


def _events(heard: Iterable[Mapping[str, Any]], known: int) -> Iterable[NewEvent]:
    for event in heard:
        if event["kind"] == "message":
            yield NewEvent(event["message"], event.get("level", "info"), data=event.get("data"))
        elif event["kind"] == "checkpoint":
            if event["step"] >= known:
                yield NewEvent(f"Checkpoint created at step {event['step']}")
        elif event["step"] > known:
            told = f"Step {event['step']}/{event['steps']}: training loss={_shown(event['loss'])}"
            if "valid_loss" in (metrics := _metrics(event)):
                told += f", validation loss={_shown(event['valid_loss'])}"
            data = {"total_steps": event["steps"], **metrics}
            yield NewEvent(told, type="metrics", data=data)


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"


def _metrics(event: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's names for what is measured. Validation takes its whole file, once an epoch."""
    named = {
        "step": event["step"], "train_loss": event["loss"], "valid_loss": event["valid_loss"],
        "full_valid_loss": event["valid_loss"], "learning_rate": event["learning_rate"],
    }  # fmt: skip
    for name, value in event.get("measures", {}).items():
        valid = name.startswith("valid_")
        named |= {name: value, f"full_{name}": value} if valid else {f"train_{name}": value}
    return {name: value for name, value in named.items() if value is not None}
