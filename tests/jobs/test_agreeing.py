"""How far judges agree with people, asked of real models and through a real server's wire."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dialoop.errors import DataError
from dialoop.evals.judge import Rubric
from dialoop.jobs.agreeing import Agreeing, agree, write
from tests.tiny import make_tiny_model


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_model(tmp_path_factory.mktemp("judge"), context=1024))


def test_preferences_of_people_are_compared_in_both_orders(judge: str, tmp_path: Path) -> None:
    found = agree(Agreeing(judge, ("sample:preference",), max_cases=6), tmp_path)
    assert len(found.human) == len(found.judge) == found.found.cases == 6
    assert set(found.human) <= {"before", "after"}
    assert set(found.judge) <= {"before", "after", "tie"}
    assert found.consistency is not None
    written = json.loads(write(found, tmp_path).read_text(encoding="utf-8"))
    assert written["human"] == list(found.human)
    assert "kappa" in written["words"]["zh"]


def test_grades_of_people_are_compared(judge: str, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "where is it?"}, {"role": "assistant", "content": "it comes soon"}]
    rows = [{"messages": turns, "score": grade} for grade in (1, 5, 3, 9)] + [{"messages": turns}]
    path = tmp_path / "rated.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = agree(Agreeing(judge, (f"file:{path}",), Rubric("Is it kind?")), tmp_path)
    assert sorted(found.human) == [1, 3, 5]
    assert all(grade in range(1, 6) for grade in found.judge)
    assert "set --lowest" in found.rejected[0]
    assert "no whole grade" in found.rejected[1]


def test_rows_without_what_people_said_are_refused(judge: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no preferences"):
        agree(Agreeing(judge, ("sample:en",)), tmp_path)
