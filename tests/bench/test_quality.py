"""The quality bench teaches by the shipped recipes, keeps its answers, and prints shares with intervals."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.encoders import make_encoder
from tests.train.drill import ANSWERS
from tests.train.head_drill import TAGGED, TEXTS

BENCH = Path(__file__).parents[2] / "bench"
SHORT = ("train.epochs=2", "train.batch_rows=8", "data.split.valid=0.0", 'data.clean.steps=["unicode"]')


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("quality")


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like that of the public sets."""
    monkeypatch.setenv("DIALOOP_DATA", str(tmp_path / "data"))
    labelled = [{"text": f"{text} {i}", "label": label} for label, texts in TEXTS.items() for text in texts
                for i in range(4)]  # fmt: skip
    dialogues = [
        {"id": str(i), "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for i, (q, a) in enumerate([*ANSWERS.items()] * 3)
    ]
    tagged = [{"doc": i, "tokens": row.tokens, "tags": row.tags} for i, row in enumerate([*TAGGED] * 3)]
    write(tmp_path / "data" / "banking77" / "train.jsonl.gz", labelled)
    write(tmp_path / "data" / "conll2003" / "train.jsonl.gz", tagged)
    write(tmp_path / "data" / "conll2003" / "valid.jsonl.gz", tagged)
    for name in ("sgd", "crosswoz"):
        write(tmp_path / "data" / name / "valid.jsonl.gz", dialogues)
    return make_encoder(tmp_path / "encoder")


def write(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()))


def run(bench: Any, monkeypatch: pytest.MonkeyPatch, work: Path, encoder: Path, *given: str) -> None:
    changes = [word for change in SHORT for word in ("--set", change)]
    words = [*given, "--work", str(work), "--encoder", str(encoder), "--ways", "encoder", *changes]
    monkeypatch.setattr(sys, "argv", ["quality.py", *words])
    bench.main()


def test_classes_are_told_beside_a_baseline_and_asked_once(
    bench: Any,
    public: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("classes", "--sets", "banking77", "--set", "data.split.test=0.4")
    run(bench, monkeypatch, tmp_path / "work", public, *asked)
    first = capsys.readouterr()
    assert "TF-IDF + logistic regression" in first.out
    assert "own encoder, full" in first.out
    assert "banking77, encoder: " in first.err
    run(bench, monkeypatch, tmp_path / "work", public, *asked)
    again = capsys.readouterr()
    assert (again.out, again.err) == (first.out, "")


def test_taggers_are_told_beside_a_crf(
    bench: Any,
    public: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gold = {"answers": [list(row.tags) for row in [*TAGGED] * 3], "minutes": 0.0}
    path = tmp_path / "work" / "conll2003" / "crf.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(gold))
    run(bench, monkeypatch, tmp_path / "work", public, "tags")
    shown = capsys.readouterr().out
    assert "| CRF, hand-made features | 1.000 | 1.000 | 1.000 | 100.0 | 100.0 | 100.0 |" in shown
    assert "points below the CRF's" in shown
    assert "weighted avg" in shown


def test_answers_are_chosen_among_those_of_one_language(
    bench: Any,
    public: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = tmp_path / "work"
    (work / "pair").mkdir(parents=True)
    monkeypatch.setattr("quality_answers.decoder", lambda folder: None)
    monkeypatch.setattr(
        "dialoop.jobs.choices.Choices.by_likelihood",
        lambda self, ref: [[0.0] * len(answers) for answers in self.offered],
    )
    run(bench, monkeypatch, work, public, "answers", "--set", "data.split.test=0.5")
    shown = capsys.readouterr().out
    assert "| shipped decoder, P(A|H) | 0.0 [" in shown
    assert shown.count("| own encoder, full |") == 3  # all, en, zh


def test_a_strange_name_is_refused_with_what_there_is(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py", "classes", "--ways", "adapter"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "adapter: give some of encoder, decoder, lora" in capsys.readouterr().err


def test_hand_made_features_see_shapes_ends_and_neighbours(bench: Any) -> None:
    tags = importlib.import_module("quality_tags")
    first, *_, last = tags.features(["BRUSSELS", "1996-08-22"])
    assert {"0:word=BRUSSELS", "0:shape=X", "suffix=ELS", "1:lower=1996-08-22", "-1:none"} <= set(first)
    assert {"0:long=dddd-dd-dd", "0:shape=d-d-d", "-1:word=BRUSSELS", "2:none"} <= set(last)
