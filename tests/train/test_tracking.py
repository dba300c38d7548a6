"""The course of training at TensorBoard, MLflow and W&B; what fails there never ends a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dialoop.config import TrackingSettings
from dialoop.errors import ConfigError
from dialoop.train import tracking
from dialoop.train.loop import Progress
from dialoop.train.tracking import flat, tracked

PARAMS = {"name": "shop", "optim": {"learning_rate": 0.1}}


def progress(step: int, loss: float = 1.0, valid: float | None = None) -> Progress:
    return Progress(step, 9, loss / step, 0.1, 2.0, 64 * step, 640.0, 0.1 * step, 1.0, valid)


def settings(**given: Any) -> TrackingSettings:
    return TrackingSettings.model_validate(given)


class Notebook:
    """A service that writes down what it is told, and fails at one update."""

    fails_at = 0

    def __init__(
        self, settings: TrackingSettings, name: str, folder: Path, params: Mapping[str, Any]
    ) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []
        self.closed = False
        made.append(self)

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise OSError("no route to host")
        self.told.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


made: list[Notebook] = []


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> type[Notebook]:
    made.clear()
    monkeypatch.setitem(tracking.TRACKERS, "wandb", Notebook)  # type: ignore[arg-type]
    monkeypatch.setattr(Notebook, "fails_at", 0)
    return Notebook


def test_every_nth_update_and_every_validation_is_told(notebook: type[Notebook], tmp_path: Path) -> None:
    with tracked(settings(to=["wandb"], every=4), "run", tmp_path, PARAMS) as track:
        for step in range(1, 10):
            track(progress(step, valid=0.5 if step == 3 else None))
    (told,) = made
    assert [step for step, _ in told.told] == [3, 4, 8, 9]
    assert told.told[0][1]["valid_loss"] == 0.5
    assert "valid_loss" not in told.told[1][1]
    assert told.closed


def test_numbers_that_are_not_finite_are_left_out(notebook: type[Notebook], tmp_path: Path) -> None:
    with tracked(settings(to=["wandb"]), "run", tmp_path, PARAMS) as track:
        track(progress(1, loss=float("nan")))
    assert "loss" not in made[0].told[0][1]
    assert "learning_rate" in made[0].told[0][1]


def test_a_service_that_fails_is_named_once_and_training_goes_on(
    notebook: type[Notebook],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Notebook, "fails_at", 2)
    with (
        caplog.at_level(logging.WARNING),
        tracked(settings(to=["wandb"]), "run", tmp_path, PARAMS) as track,
    ):
        for step in (1, 2, 3):
            track(progress(step))
    assert [step for step, _ in made[0].told] == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "wandb takes no more of this run (no route to host): metrics.jsonl has all of it"
    ]


def test_a_service_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(*given: object) -> Any:
        raise ImportError("No module named 'mlflow'")

    monkeypatch.setitem(tracking.TRACKERS, "mlflow", missing)  # type: ignore[arg-type]
    with (
        pytest.raises(ConfigError, match=r"pip install 'dialoop\[mlflow\]'"),
        tracked(settings(to=["mlflow"]), "run", tmp_path, PARAMS),
    ):
        pass


def test_tensorboard_files_hold_the_points_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in ((1, 2, 3, 4), (3, 4, 5)):
        with tracked(settings(to=["tensorboard"]), "run", tmp_path, PARAMS) as track:
            for step in steps:
                track(progress(step))
    events = reading.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    points = {event.step: event.value for event in events.Scalars("loss")}
    assert points == {step: pytest.approx(1 / step) for step in range(1, 6)}
    assert len(events.Scalars("loss")) == 5


def test_mlflow_gets_one_run_with_the_recipe_even_when_resumed(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'store.sqlite3'}"
    for steps in ((1, 2), (3,)):
        with tracked(settings(to=["mlflow"], uri=uri), "run", tmp_path, PARAMS) as track:
            for step in steps:
                track(progress(step))
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("dialoop")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["optim.learning_rate"] == "0.1"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3]
    assert run.info.status == "FINISHED"


def test_wandb_writes_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with tracked(settings(to=["wandb"]), "run", tmp_path, PARAMS) as track:
        track(progress(1))
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_recipe_is_flattened_to_its_fields() -> None:
    assert flat(PARAMS) == {"name": "shop", "optim.learning_rate": 0.1}
