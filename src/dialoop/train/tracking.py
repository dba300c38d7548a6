"""The course of training, told to TensorBoard, MLflow or Weights & Biases by one small protocol.

A service that fails in the middle is named in the log and left out from then on: training goes on.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dialoop.config import Service, TrackingSettings
from dialoop.errors import ConfigError
from dialoop.train.loop import Progress

TOLD = ("loss", "valid_loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second")
"""Fields of `Progress` that are told, those that are finite numbers."""
Params = Mapping[str, Any]
"""A recipe as JSON."""
log = logging.getLogger(__name__)


class Tracker(Protocol):
    """One run at one service."""

    def tell(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `folder/tensorboard`; points after the update that a run resumes from are hidden."""

    def __init__(
        self, settings: TrackingSettings, name: str, folder: Path, params: Mapping[str, Any]
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make: Any = partial(SummaryWriter, log_dir=str(folder / "tensorboard"))
        self._recipe = f"```json\n{json.dumps(params, indent=1, ensure_ascii=False)}\n```"
        self._writer: Any = None

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None:
            self._writer = self._make(purge_step=step)
            self._writer.add_text("recipe", self._recipe)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """One MLflow run, which a resumed one goes on with."""

    def __init__(
        self, settings: TrackingSettings, name: str, folder: Path, params: Mapping[str, Any]
    ) -> None:
        import mlflow

        given = settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._client = mlflow.MlflowClient(given or f"sqlite:///{(folder / 'mlflow.sqlite3').resolve()}")
        kept = folder / "mlflow.json"
        if kept.is_file():
            self._run = str(json.loads(kept.read_text(encoding="utf-8"))["run"])
            self._client.set_terminated(self._run, "RUNNING")
            return
        known = self._client.get_experiment_by_name(settings.project)
        experiment = known.experiment_id if known else self._client.create_experiment(settings.project)
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        kept.write_text(json.dumps({"run": self._run}), encoding="utf-8")
        for key, value in flat(params).items():
            self._client.log_param(self._run, key, value)

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class WandB:
    """One W&B run, which a resumed one goes on with."""

    def __init__(
        self, settings: TrackingSettings, name: str, folder: Path, params: Mapping[str, Any]
    ) -> None:
        import wandb

        kept = folder / "wandb.json"
        known = json.loads(kept.read_text(encoding="utf-8"))["run"] if kept.is_file() else None
        self._run: Any = wandb.init(
            project=settings.project,
            name=name,
            dir=str(folder),
            config=dict(params),
            id=known,
            resume="allow",
        )
        kept.write_text(json.dumps({"run": self._run.id}), encoding="utf-8")

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[Service, Callable[[TrackingSettings, str, Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB,
}  # fmt: skip


@contextmanager
def tracked(
    settings: TrackingSettings, name: str, folder: Path, params: Mapping[str, Any]
) -> Iterator[Callable[[Progress], None]]:
    """What takes each update and tells it to every service, closed at the end of the block.

    Raises ConfigError for a service whose package is not installed.
    """
    open_ = {service: _opened(service, settings, name, folder, params) for service in settings.to}

    def track(progress: Progress) -> None:
        due = progress.step % settings.every == 0 or progress.valid_loss is not None
        for service in tuple(open_) if due or progress.step == progress.steps else ():
            _safely(open_, service, lambda tracker: tracker.tell(progress.step, points(progress)))

    try:
        yield track
    finally:
        for service in tuple(open_):
            _safely(open_, service, lambda tracker: tracker.close())


def _opened(
    service: Service, settings: TrackingSettings, name: str, folder: Path, params: Mapping[str, Any]
) -> Tracker:
    try:
        return TRACKERS[service](settings, name, folder, params)
    except ImportError as error:
        raise ConfigError(
            f"tracking.to names {service!r}, which is not installed ({error}): "
            f"pip install 'dialoop[{service}]', or leave it out"
        ) from error


def _safely(open_: dict[Service, Tracker], service: Service, act: Callable[[Tracker], None]) -> None:
    try:
        act(open_[service])
    except Exception as error:
        log.warning("%s takes no more of this run (%s): metrics.jsonl has all of it", service, error)
        del open_[service]


def points(progress: Progress) -> dict[str, float]:
    """The numbers of one update that services are told."""
    found = {name: getattr(progress, name) for name in TOLD}
    return {name: float(v) for name, v in found.items() if v is not None and math.isfinite(v)}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's fields by their dotted paths."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
