"""Two tiny models on the same dialogues: asked once, compared, with costs, lineage and leak check."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dialoop.config import EvalSettings, TuneRecipe
from dialoop.errors import ConfigError
from dialoop.evals.written import write
from dialoop.jobs.answers import KeptAnswers, key_of, model_hash
from dialoop.jobs.comparing import Comparing, compare_models
from dialoop.jobs.scoring import Judging, score_model
from dialoop.jobs.tuning import run_tuning
from dialoop.types import ModelRef
from tests.jobs.test_tuning import Notes
from tests.tiny import long_dialogues, make_tiny_model, tiny_model

SETTINGS = EvalSettings(max_cases=5, max_tokens=6, resamples=200)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with shop@1, tuned from the tiny model on some of the dialogues that are asked about."""
    folder = tmp_path_factory.mktemp("home")
    rows = [
        {"messages": [{"role": "user", "content": f"where is parcel {i}?"},
                      {"role": "assistant", "content": f"parcel {i} will come on day {i * i}"}]}
        for i in range(40)
    ]  # fmt: skip
    for name, some in (("train", rows[:30]), ("test", rows[25:]), ("old", rows[:6])):
        text = "\n".join(json.dumps(row) for row in some)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    recipe = TuneRecipe.model_validate({
        "name": "shop", "base": str(tiny_model()),
        "data": {
            "sources": [f"file:{folder / 'train.jsonl'}"], "clean": {"steps": ["roles"]},
            "split": {"valid": 0.1, "test": 0.1},
        },
        "method": {"kind": "lora", "rank": 4},
        "train": {"epochs": 1, "batch_tokens": 512, "max_length": 128, "patience": 0},
        "eval": {"max_cases": 2, "max_tokens": 4, "resamples": 200},
    })  # fmt: skip
    run_tuning(recipe, folder, folder / "runs" / "shop", "x", Notes())
    return folder


def asked(home: Path, **changes: object) -> Comparing:
    sets = {"test": (f"file:{home / 'test.jsonl'}",), "old": (f"file:{home / 'old.jsonl'}",)}
    return Comparing(str(tiny_model()), "shop", sets, SETTINGS, **changes)  # type: ignore[arg-type]


def test_two_models_are_compared_and_asked_once(home: Path, tmp_path: Path) -> None:
    told: list[str] = []
    first = compare_models(asked(home), home, lambda what, done, total: told.append(what))
    assert {"answering", "scoring"} <= set(told)
    assert first.retained[0].name == "old"
    assert all(cost is not None and cost.tokens_per_second > 0 for cost in first.costs)
    assert first.costs[0].weight_bytes <= first.costs[1].weight_bytes  # type: ignore[union-attr]
    assert first.leaked is not None
    assert first.leaked > 0
    assert "shop@1 (lora, data " in first.identity.more["lineage_after"]
    told.clear()
    again = compare_models(asked(home, speed=False), home, lambda what, done, total: told.append(what))
    assert told == []
    assert repr(again.rows) == repr(first.rows)  # NaN equals nothing
    page = write(first, tmp_path).html.read_text(encoding="utf-8")
    assert "Retention" in page
    assert "Speed and memory" in page
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("task", ["reply", "selection"])
def test_histories_that_lost_exchanges_are_counted(task: str, tmp_path: Path) -> None:
    rows, model = tmp_path / "long.jsonl", str(tiny_model())
    rows.write_text("\n".join(map(json.dumps, long_dialogues(exchanges=30))), encoding="utf-8")
    sets = {"test": (f"file:{rows}",)}
    counted = []
    for _ in range(2):  # the second time from what was kept
        comparing = Comparing(model, model, sets, SETTINGS, speed=False, task=task)
        found = compare_models(comparing, tmp_path, lambda *told: None)
        counted.append(found.shortened)
    cut = counted[0]
    assert 0 < cut <= found.cases == 5
    assert counted == [cut, cut]
    written = write(found, tmp_path / "out")
    assert f"{cut} of 5 histories were too long" in written.markdown.read_text(encoding="utf-8")
    assert f"5 段历史中有 {cut} 段超出上下文" in written.html.read_text(encoding="utf-8")
    judging = Judging(model, sets["test"], SETTINGS, task)
    assert score_model(judging, tmp_path, lambda *told: None).shortened == cut


def test_other_models_judge_and_compare_in_meaning(home: Path, tmp_path: Path) -> None:
    other = str(make_tiny_model(tmp_path / "judge", context=1024))
    found = compare_models(asked(home, speed=False, judge=other, embedder=other), home, lambda *_: None)
    assert found.judged is not None
    assert len(found.judged.cases) == found.cases
    assert "prefers the answers after in" in found.judged.words()
    assert "embedding similarity" in {row.change.metric for row in found.rows}


def test_choices_are_compared_with_pictures_of_who_was_taken_for_whom(home: Path, tmp_path: Path) -> None:
    rows = [{"text": f"parcel {i}?", "label": "even" if i % 2 == 0 else "odd"} for i in range(8)]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sets = {"test": (f"file:{path}",), "old": (f"file:{home / 'old.jsonl'}",)}
    asked = Comparing(str(tiny_model()), "shop", sets, SETTINGS, speed=True, task="classification")
    told: list[str] = []
    report = compare_models(asked, home, lambda what, done, total: told.append(what))
    assert {row.change.metric for row in report.rows} == {"accuracy", "macro F1", "ECE", "perplexity"}
    assert "choosing" in told
    assert report.retained[0].report.task == "reply"  # the other set holds replies
    assert all(side.before in ("even", "odd") for side in report.answers)
    page = write(report, tmp_path / "out").html.read_text(encoding="utf-8")
    assert "Who was taken for whom" in page
    assert (tmp_path / "out" / "confusion-after.png").exists()
    told.clear()
    compare_models(replace(asked, speed=False), home, lambda what, done, total: told.append(what))
    assert "answering" not in told


@pytest.mark.parametrize(("task", "metric"), [("selection", "MRR"), ("retrieval", "nDCG@10")])
def test_a_model_chooses_among_the_answers_of_a_set(home: Path, task: str, metric: str) -> None:
    asked = Judging(str(tiny_model()), (f"file:{home / 'test.jsonl'}",), SETTINGS, task, command="x")
    found = score_model(asked, home, lambda *_: None)
    values = {row.metric: row for row in found.scores}
    assert 0 < values[metric].value <= 100
    assert values[metric].low <= values[metric].value <= values[metric].high
    assert found.classes is None
    assert score_model(asked, home, lambda *_: None).scores == found.scores


def test_a_comparison_without_a_main_set_is_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="no set 'test'"):
        compare_models(Comparing("shop", "shop", {"general": ("sample:en",)}), home, lambda *_: None)


def test_a_run_that_was_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path, "m")
    kept.keep("a", "one\ntwo")
    kept.keep("b", [-1.5, 3])
    path = tmp_path / "m.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '["c", "hal', encoding="utf-8")
    second = KeptAnswers(tmp_path, "m")
    assert (second.get("a"), second.get("b"), second.get("c")) == ("one\ntwo", [-1.5, 3], None)
    second.keep("c", "whole")
    assert KeptAnswers(tmp_path, "m").get("c") == "whole"
    assert (second.hits, second.asked) == (2, 3)


def test_answers_are_known_by_model_prompt_and_parameters(tmp_path: Path) -> None:
    assert key_of([1, 2], {"max_tokens": 4}) == key_of([1, 2], {"max_tokens": 4})
    assert len({key_of([1, 2], {"n": 4}), key_of([1, 3], {"n": 4}), key_of([1, 2], {"n": 5})}) == 3
    (tmp_path / "weights").write_bytes(b"1")
    first = model_hash(ModelRef("m", tmp_path))
    (tmp_path / "weights").write_bytes(b"2")
    assert model_hash(ModelRef("m", tmp_path)) != first
