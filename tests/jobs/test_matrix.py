"""Prompts and models side by side on the same cases."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dialoop.config import EvalSettings
from dialoop.errors import ConfigError, EvalError
from dialoop.evals.matrix import Side, matrix_of
from dialoop.evals.matrix_written import headline, show, write
from dialoop.evals.suites import task_named
from dialoop.evals.task import Outcome, cases
from dialoop.jobs.matrix import Crossing, Wording, cross
from dialoop.types import Conversation, Message
from tests.tiny import make_tiny_model, tiny_model

SETTINGS = EvalSettings(max_cases=6, max_tokens=4, resamples=200)
KIND = Wording(
    "kind", lambda history, language: Conversation((Message("system", "Be kind."), *history.messages))
)


def labelled(path: Path) -> str:
    rows = [{"text": f"parcel {i}?", "label": "even" if i % 2 == 0 else "odd"} for i in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return f"file:{path}"


def test_every_prompt_is_asked_of_every_model_and_the_question_is_the_same(tmp_path: Path) -> None:
    models = (str(tiny_model()), str(make_tiny_model(tmp_path / "other", seed=3)))
    source = labelled(tmp_path / "rows.jsonl")
    told: list[str] = []
    asked = Crossing(models, (Wording("none"), KIND), (source,), SETTINGS, "classification")
    found = cross(asked, tmp_path, lambda what, done, total: told.append(what))
    assert [(side.prompt, side.model) for side in found.sides] == [
        (prompt, side.model) for side in found.sides[::2] for prompt in ("none", "kind")
    ]
    assert found.sides[1].tokens > found.sides[0].tokens  # type: ignore[operator]
    assert all(side.cost is not None for side in found.sides)
    assert {column.metric for column in found.columns} == {"accuracy", "macro F1"}
    assert all([cell.standing for cell in column.cells].count("best") == 1 for column in found.columns)
    shown = StringIO()
    show(found, Console(file=shown, width=160))
    assert "kind" in shown.getvalue()
    paths = write(found, tmp_path / "out", "dialoop matrix")
    page = paths.html.read_text(encoding="utf-8")
    assert "Prompts and models" in page
    assert "提示与模型" in page
    written = json.loads(paths.json.read_text(encoding="utf-8"))
    assert written["sides"][0]["outcomes"] == []
    told.clear()
    cross(Crossing(models, (KIND,), (source,), SETTINGS, "classification", speed=False), tmp_path,
          lambda what, done, total: told.append(what))  # fmt: skip
    assert len(told) == 2 * 6  # told of, and found among what was kept


def sides(*answers: tuple[str, ...]) -> list[Side]:
    rows = [
        Conversation((Message("user", f"q{i}"), Message("assistant", "yes" if i % 2 else "no")))
        for i in range(len(answers[0]))
    ]
    known = cases(rows)
    return [
        Side(f"p{n}", "m", tuple(Outcome(c, said) for c, said in zip(known, given, strict=True)))
        for n, given in enumerate(answers)
    ]


def test_the_headline_names_what_is_best_or_cannot_be_told_from_it() -> None:
    right = tuple("yes" if i % 2 else "no" for i in range(60))
    wrong = tuple("maybe" for _ in right)
    task = task_named("classification")
    found = matrix_of(sides(right, wrong, wrong), task, resamples=200)
    assert headline(found) == "p0 x m is best, told from all others with 60 cases."
    assert [cell.standing for cell in found.columns[0].cells] == ["best", "behind", "behind"]
    even = matrix_of(sides(right, right, wrong), task, resamples=200)
    assert "p0 x m, p1 x m" in headline(even)
    assert "成本最低" in headline(even, "zh")


def test_sides_that_answered_other_cases_are_refused(tmp_path: Path) -> None:
    first, second = sides(("yes", "no")), sides(("yes", "no", "no"))
    with pytest.raises(EvalError, match="the same cases"):
        matrix_of([*first, *second], task_named("classification"))
    with pytest.raises(ConfigError, match="at least one --model"):
        cross(Crossing((), (Wording("none"),), ("sample:en",)), tmp_path, lambda *_: None)
