"""Rows in, a measured and registered model with a head out; then served and asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dialoop.cli.app import app
from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.errors import DataError, EvalError
from dialoop.evals.scores import write
from dialoop.jobs.heads import Finished, run_head
from dialoop.jobs.scoring import Judging, score_model
from dialoop.store.registry import Store
from dialoop.train.loop import Progress
from tests.encoders import make_encoder
from tests.train.drill import ANSWERS
from tests.train.head_drill import TAGGED, TEXTS, head_recipe

ROWS: dict[str, list[dict[str, Any]]] = {
    "classify": [{"text": text, "label": label} for label, texts in TEXTS.items() for text in texts],
    "tag": [{"tokens": list(row.tokens), "tags": list(row.tags)} for row in TAGGED],
    "pair": [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in ANSWERS.items()
    ],
}  # fmt: skip


class Notes:
    """A watch that remembers what it saw."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.counts: tuple[int, int, int] = (0, 0, 0)

    def step(self, number: int, title: str) -> None:
        self.steps.append(title)

    def rows(self, dataset: Any) -> None:
        self.counts = (len(dataset.train), len(dataset.valid), len(dataset.test))

    def training(self, progress: Progress) -> None:
        self.last = progress.step


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


def run(kind: str, home: Path, base: Path, notes: Notes, **changes: Any) -> Finished:
    path = home / "rows.jsonl"
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS[kind]), encoding="utf-8"
    )
    data = {"sources": [f"file:{path}"], "test_sources": [f"file:{path}"], "split": {"valid": 0, "test": 0}}
    learning = {"train__epochs": 100.0, "train__eval_every": 50, "optim__learning_rate": 2e-3}
    recipe = head_recipe(kind, base=str(base), data=data, **learning, **changes)
    return run_head(recipe, home, home / "runs" / "head", "dialoop tune head", notes)


SYSTEMS = {
    "classify": (["majority", "TF-IDF + LR", "before", "after"], "accuracy"),
    "tag": (["all O", "word's commonest tag", "before", "after"], "span F1"),
    "pair": (["chance", "BM25", "before", "after"], "recall@1"),
}


TASKS = {
    "classify": ("classification", "accuracy"), "tag": ("tags", "span F1"), "pair": ("selection", "recall@1"),
}  # fmt: skip
"""What `dialoop eval` asks of each, and the metric that it has too."""


@pytest.mark.parametrize("kind", list(ROWS))
def test_a_recipe_becomes_a_registered_model_and_a_table_beside_baselines(
    kind: str, tmp_path: Path, base: Path
) -> None:
    notes = Notes()
    finished = run(kind, tmp_path, base, notes)
    assert notes.steps == ["rows", "training", "judging"]
    assert finished.version is not None
    assert finished.report is not None
    assert (finished.version.ref, finished.version.kind) == ("head@1", kind)
    names, metric = SYSTEMS[kind]
    assert [system.name for system in finished.report.systems] == names
    values = {system.name: system.values["all"][metric] for system in finished.report.systems}
    assert values["after"] > max(values["before"], values[names[0]])
    written = json.loads((finished.folder / "report.json").read_text(encoding="utf-8"))
    assert written["identity"]["data"] == finished.version.data_hash
    text = (finished.folder / "report.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in names)
    assert finished.version.metrics["after"][metric] == pytest.approx(values["after"])
    with Store.open(tmp_path) as store:
        assert [each.status for each in store.runs.list()] == ["completed"]
    task, same = TASKS[kind]
    asked = Judging("head", (f"file:{tmp_path / 'rows.jsonl'}",), task=task)
    scores = score_model(asked, tmp_path, lambda *_: None)
    again = {
        row.metric: row.value / 100 for row in scores.scores if row.language == scores.scores[-1].language
    }
    if kind == "pair":  # other answers are offered
        assert again[metric] > values["chance"]
    else:
        assert again[same] == pytest.approx(values["after"])
    if kind == "classify":
        ece = finished.report.systems[-1].values["all"]["ECE"]
        assert again["ECE"] == pytest.approx(ece, abs=1e-3)
        assert (finished.folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
        assert "confusion.png" in text
        assert write(scores, tmp_path / "out").exists()
        assert (tmp_path / "out" / "confusion.png").exists()


def test_a_head_is_asked_for_what_it_can_do(tmp_path: Path, base: Path) -> None:
    with pytest.raises(EvalError, match="does not write answers: ask it with --task classification"):
        score_model(Judging(str(base), ("sample:en",)), tmp_path, lambda *_: None)


def test_languages_are_told_apart_where_there_are_two(tmp_path: Path, base: Path) -> None:
    report = run("classify", tmp_path, base, Notes()).report
    assert report is not None
    assert set(report.counts) == {"all", "en", "zh"}
    assert report.counts["all"] == report.counts["en"] + report.counts["zh"]


async def test_what_was_registered_is_served_by_its_name(tmp_path: Path, base: Path) -> None:
    run("classify", tmp_path, base, Notes())
    with Store.open(tmp_path) as store:
        ref = store.models.resolve("head")
    engine = LocalEngine(open_models([ref]))
    found = await engine.classify(ref.name, [row["text"] for row in ROWS["classify"]])
    await engine.aclose()
    assert [each.label for each in found.rows] == [row["label"] for row in ROWS["classify"]]


def test_a_head_can_be_tuned_further_from_the_same_store(tmp_path: Path, base: Path) -> None:
    run("classify", tmp_path, base, Notes())
    again = run("classify", tmp_path, Path("head"), Notes())
    assert again.version is not None
    with Store.open(tmp_path) as store:
        lineage = [getattr(each, "ref", each) for each in store.models.lineage("head@2")]
    assert lineage == ["head@2", "head@1", str(base)]


def test_nothing_to_test_on_is_refused(tmp_path: Path, base: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS["classify"][0]) + "\n")
    recipe = head_recipe("classify", base=str(base), data={"sources": [f"file:{path}"]})
    with pytest.raises(DataError, match="0 to test on"):
        run_head(recipe, tmp_path, tmp_path / "run", "x", Notes())


def test_the_command_trains_what_the_recipe_says_it_is(tmp_path: Path, base: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS["classify"]))
    recipe = tmp_path / "shop.toml"
    recipe.write_text(
        f'kind = "classify"\nname = "shop"\nbase = "{base}"\n[data]\nsources = ["file:{rows}"]\n'
        f'test_sources = ["file:{rows}"]\n[data.split]\nvalid = 0\n[train]\nepochs = 2\n'
    )
    done = CliRunner().invoke(app, ["--home", str(tmp_path / "home"), "tune", str(recipe)])
    assert done.exit_code == 0, done.output
    assert "TF-IDF + LR" in done.output
    assert "Registered: shop@1" in done.output
