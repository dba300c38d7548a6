"""Dialogues in, a measured and registered model out: the whole job on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dialoop.config import TuneRecipe
from dialoop.data.dataset import Dataset
from dialoop.errors import DataError
from dialoop.jobs.tuning import Find, run_tuning
from dialoop.store.registry import Store
from dialoop.train.loop import Progress
from tests.tiny import tiny_model


class Notes:
    """A watch that remembers what it saw."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.losses: list[float] = []
        self.counts: tuple[int, int, int] = (0, 0, 0)

    def step(self, number: int, title: str) -> None:
        self.steps.append(title)

    def data(self, dataset: Dataset) -> None:
        self.counts = (len(dataset.train), len(dataset.valid), len(dataset.test))

    def done(self, what: str, done: int, total: int) -> None:
        pass

    def training(self, progress: Progress) -> None:
        self.losses.append(progress.loss)


def recipe(**changes: object) -> TuneRecipe:
    table: dict[str, object] = {
        "name": "shop",
        "base": str(tiny_model()),
        "data": {"sources": ["sample:en", "sample:zh"], "limit": 120, "split": {"group_by": ["scenario"]}},
        "method": {"kind": "lora", "rank": 4},
        "optim": {"learning_rate": 1e-2},
        "train": {"epochs": 1, "batch_tokens": 1024, "max_length": 256, "patience": 0},
        "eval": {"max_cases": 6, "max_tokens": 8, "resamples": 200},
    }
    return TuneRecipe.model_validate({**table, **changes})


def test_a_recipe_becomes_a_registered_model_with_a_report(tmp_path: Path) -> None:
    notes = Notes()
    finished = run_tuning(recipe(), tmp_path, tmp_path / "runs" / "shop", "dialoop tune", notes)

    assert notes.steps == ["data", "before", "training", "after", "report"]
    assert notes.losses[-1] < notes.losses[0]
    assert finished.version is not None
    assert finished.report is not None
    assert finished.version.ref == "shop@1"
    assert finished.folder == tmp_path / "runs" / "shop@1"
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    report = json.loads((finished.folder / "report.json").read_text(encoding="utf-8"))
    assert report["identity"]["dataset_hash"] == finished.version.data_hash
    assert len(report["curves"]) == len(notes.losses)
    assert (finished.folder / "curve.html").is_file()
    with Store.open(tmp_path) as store:
        (run,) = store.runs.list()
    assert [row["loss"] for row in run.metrics["curve"]] == notes.losses


def test_the_registered_model_can_be_tuned_from_the_same_store_and_keeps_its_lineage(tmp_path: Path) -> None:
    first = run_tuning(recipe(method={"kind": "full"}), tmp_path, tmp_path / "runs" / "shop", "x", Notes())
    second = run_tuning(recipe(base="shop"), tmp_path, tmp_path / "runs" / "shop", "x", Notes())
    assert first.version is not None
    assert second.version is not None
    with Store.open(tmp_path) as store:
        lineage = [getattr(each, "ref", each) for each in store.models.lineage("shop@2")]
        runs = {run.kind: run.status for run in store.runs.list()}
    assert lineage[:2] == ["shop@2", "shop@1"]
    assert runs == {"tune": "completed"}


def test_a_rate_that_is_found_is_trained_with_registered_and_kept_for_a_resumed_run(tmp_path: Path) -> None:
    noted: list[str] = []
    chosen = recipe(eval={"max_cases": 1, "max_tokens": 2, "resamples": 100})
    find = Find(rate=True, on_note=noted.append)
    finished = run_tuning(chosen, tmp_path, tmp_path / "run", "x", Notes(), find)
    kept = json.loads((tmp_path / "run/found.json").read_text(encoding="utf-8"))["rate"]["learning_rate"]
    assert finished.version is not None
    with Store.open(tmp_path) as store:
        assert store.models.get("shop@1").recipe["optim"]["learning_rate"] == kept
    assert noted == [f"learning rate {kept:g}"]


def test_whole_scenarios_are_held_out(tmp_path: Path) -> None:
    seen: list[Dataset] = []

    class Keep(Notes):
        def data(self, dataset: Dataset) -> None:
            seen.append(dataset)

    run_tuning(recipe(), tmp_path, tmp_path / "runs" / "shop", "x", Keep())
    trained = {row.metadata["scenario"] for row in seen[0].train}
    tested = {row.metadata["scenario"] for row in seen[0].test}
    assert tested
    assert not trained & tested


def test_a_run_on_preferences_reports_what_is_preferred_beside_the_usual(tmp_path: Path) -> None:
    pairs = {"sources": ["sample:preference"], "split": {"group_by": ["scenario"], "test": 0.3}}
    made = recipe(data=pairs, objective={"kind": "dpo"}, optim={"learning_rate": 5e-3})
    finished = run_tuning(made, tmp_path, tmp_path / "runs" / "shop", "x", Notes())
    assert finished.version is not None
    assert finished.report is not None
    rows = {(row.language, row.change.metric): row.change for row in finished.report.rows}
    for language in ("en", "zh", "all"):
        margin, accuracy = (rows[language, f"preference {what}"] for what in ("margin", "accuracy"))
        assert margin.low <= margin.delta <= margin.high
        assert margin.cases == accuracy.cases
        assert 0 <= accuracy.after <= 100
    assert rows["all", "preference margin"].delta > 0
    assert ("en", "perplexity") in rows
    assert finished.report.identity.method == "lora, dpo"
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "preference margin" in page
    assert "偏好准确率" in page
    stored = finished.version.metrics["metrics"]["all"]["preference margin"]
    assert stored["after"] == pytest.approx(rows["all", "preference margin"].after)


def test_a_student_is_tuned_by_a_teacher_of_the_store(tmp_path: Path) -> None:
    first = run_tuning(recipe(), tmp_path, tmp_path / "runs" / "shop", "x", Notes())
    assert first.version is not None
    distilled = recipe(name="small", objective={"kind": "distill", "teacher": "shop"})
    second = run_tuning(distilled, tmp_path, tmp_path / "runs" / "small", "x", Notes())
    assert second.version is not None
    assert second.version.ref == "small@1"


def test_data_that_leaves_no_test_rows_is_an_error_that_says_how_to_mend_it(tmp_path: Path) -> None:
    alone = {"sources": ["sample:en"], "limit": 40, "split": {"valid": 0, "test": 0}}
    with pytest.raises(DataError, match=r"0 to test on .* data\.split"):
        run_tuning(recipe(data=alone), tmp_path, tmp_path / "run", "x", Notes())
    with Store.open(tmp_path) as store:
        assert store.models.list() == ()
