"""Prompts and models side by side on the same cases."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dialoop.cli.app import app
from dialoop.config import EvalSettings
from dialoop.errors import ConfigError, EvalError
from dialoop.evals.choices import with_options
from dialoop.evals.matrix import Side, matrix_of
from dialoop.evals.matrix_written import headline, show, write
from dialoop.evals.suites import task_named
from dialoop.evals.task import Outcome, cases
from dialoop.jobs.matrix import Crossing, Wording, cross
from dialoop.types import Conversation, Message
from tests.tiny import CONTEXT, long_dialogues, make_tiny_model, tiny_model

SETTINGS = EvalSettings(max_cases=6, max_tokens=4, resamples=200)
KIND = Wording("kind", lambda case: Conversation((Message("system", "Be kind."), *case.history.messages)))


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


@pytest.mark.parametrize("task", ["selection", "reply"])
def test_a_history_that_is_too_long_is_asked_about_without_its_oldest_turns(
    task: str, tmp_path: Path
) -> None:
    rows, out = tmp_path / "long.jsonl", tmp_path / "out"
    rows.write_text("\n".join(map(json.dumps, long_dialogues(exchanges=30))), encoding="utf-8")
    words = ["--home", str(tmp_path), "matrix", str(rows), "--model", str(tiny_model()), "--task", task]
    words += ["--max-cases", "6", "--max-tokens", "4", "--no-speed", "--out", str(out)]
    done = CliRunner().invoke(app, [*words, "--prompt", "none", "--prompt", "dialogue"])
    assert done.exit_code == 0, done.output
    plain, worded = json.loads((out / "matrix.json").read_text(encoding="utf-8"))["sides"]
    assert min(plain["tokens"], worded["tokens"]) > CONTEXT
    told = re.compile(r"[1-6] of 6 histories were too long for the context")
    assert told.search(" ".join(done.output.split()))
    assert told.search((out / "matrix.html").read_text(encoding="utf-8"))


SHOWN = """
name = "shown"

[wording.en]
system = "Even or odd?"

[[examples]]
messages = [{ role = "user", content = "parcel 3?" }, { role = "assistant", content = "odd" }]
"""


def test_the_command_tells_labels_to_prompts_and_refuses_examples_that_give_a_case_away(
    tmp_path: Path,
) -> None:
    source, out = labelled(tmp_path / "rows.jsonl"), tmp_path / "out"
    words = [
        "--home",
        str(tmp_path),
        "matrix",
        source,
        "--model",
        str(tiny_model()),
        "--task",
        "classification",
    ]
    words += ["--max-cases", "4", "--no-speed"]
    done = CliRunner().invoke(app, [*words, "--prompt", "none", "--prompt", "classify", "--out", str(out)])
    assert done.exit_code == 0, done.output
    written = json.loads((out / "matrix.json").read_text(encoding="utf-8"))
    assert [side["prompt"] for side in written["sides"]] == ["none", "classify@0"]
    told, fewer = written["sides"][1]["tokens"], ("--set", "labels=even")
    done = CliRunner().invoke(app, [*words, "--prompt", "classify", *fewer, "--out", str(out)])
    assert json.loads((out / "matrix.json").read_text(encoding="utf-8"))["sides"][0]["tokens"] < told
    leaking = tmp_path / "shown.toml"
    leaking.write_text(SHOWN, encoding="utf-8")
    done = CliRunner().invoke(app, [*words, "--max-cases", "8", "--prompt", str(leaking)])
    assert isinstance(done.exception, EvalError)
    assert "1 examples ask what a test case asks" in str(done.exception)


def test_a_choice_that_is_no_better_than_chance_is_called_so() -> None:
    task = task_named("classification")
    right = tuple("yes" if i % 2 else "no" for i in range(60))
    blind = tuple("yes" for _ in right)

    def choosing(given: tuple[str, ...]) -> Side:
        (side,) = sides(given)
        known = with_options(
            [each.case for each in side.outcomes], [each.case for each in side.outcomes], "labels"
        )
        outcomes = [replace(o, case=case) for o, case in zip(side.outcomes, known, strict=True)]
        return replace(side, outcomes=tuple(outcomes))

    found = matrix_of([choosing(blind)], task, resamples=200)
    assert found.chance == 50
    assert headline(found).startswith("None is told from blind chance (50.0 % right) with 60 cases")
    both = matrix_of([choosing(blind), choosing(right)], task, resamples=200)
    assert [both.by_chance(cell) for cell in both.columns[0].cells] == [True, False]
    shown = StringIO()
    show(both, Console(file=shown, width=160))
    assert "~ not told from blind chance" in shown.getvalue()
