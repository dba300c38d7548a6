"""Files of rows: whatever stands in them is taken, or refused with the first line at fault."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialoop.data.training_file import check_training_file, json_objects
from dialoop.errors import DataError
from dialoop.serve.batch_lines import ENDPOINTS, check_lines, lines_of

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT})
CONVERSATION = st.lists(TURN, max_size=3).map(
    lambda turns: {"messages": [*turns, {"role": "assistant", "content": "ok"}]}
)
KEYS = st.sampled_from(["custom_id", "method", "url", "body"])
BLANK = st.sampled_from(["\n", "  \n", "\r\n"])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "in.jsonl"


def line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def request(number: int, **fields: Any) -> dict[str, Any]:
    return {"custom_id": str(number), "method": "POST", "url": ENDPOINTS[0], "body": {"model": "m", **fields}}


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(lines), encoding="utf-8", newline="")
    return path


@given(st.lists(CONVERSATION, min_size=1, max_size=5), st.lists(BLANK, max_size=3))
def test_good_conversations_are_counted(path: Path, rows: list[Any], blank: list[str]) -> None:
    assert check_training_file(write(path, [*map(line, rows), *blank])) == len(rows)


@given(st.lists(CONVERSATION, min_size=1, max_size=4), JSON, st.integers(0, 3))
def test_a_row_that_is_no_conversation_is_told_by_its_line(
    path: Path, rows: list[Any], bad: Any, at: int
) -> None:
    at = min(at, len(rows))
    write(path, [*map(line, rows[:at]), "\n", line(bad), *map(line, rows[at:])])
    with pytest.raises(DataError, match=rf"^line {at + 2}: "):
        check_training_file(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with suppress(DataError):
        assert check_training_file(path) > 0
    for problem in check_lines(path, ENDPOINTS).problems:
        assert problem.line is None or 1 <= problem.line <= data.count(b"\n") + 1


@given(st.integers(1, 6), st.integers(0, 5), KEYS, JSON)
def test_a_request_with_a_wrong_field_is_told_by_its_line(
    path: Path, count: int, at: int, key: str, bad: Any
) -> None:
    at = at % count
    rows = [request(number) for number in range(count)]
    good = bad == rows[at][key] or (key == "custom_id" and isinstance(bad, str) and bad)
    if good or (key == "body" and isinstance(bad, dict) and isinstance(bad.get("model"), str)):
        return
    rows[at] = {**rows[at], key: bad}
    (problem,) = check_lines(write(path, list(map(line, rows))), ENDPOINTS).problems
    assert (problem.line, (problem.param or "").partition(".")[0]) == (at + 1, key)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_names_that_come_twice_are_all_told(path: Path, numbers: list[int]) -> None:
    found = check_lines(write(path, [line(request(number)) for number in numbers]), ENDPOINTS)
    assert len(found.problems) == len(numbers) - len(set(numbers))
    assert {problem.code for problem in found.problems} <= {"duplicate_custom_id"}
    assert found.total == len(numbers)


@settings(max_examples=20)
@given(st.lists(TEXT, max_size=5, unique=True))
def test_what_was_checked_is_read_again_as_it_was(path: Path, texts: list[str]) -> None:
    rows = [request(number, input=text) for number, text in enumerate(texts)]
    write(path, list(map(line, rows)))
    assert [each.body["input"] for each in lines_of(path)] == texts


def test_too_many_lines_end_the_check(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dialoop.serve.batch_lines.MOST_LINES", 3)
    found = check_lines(write(path, [line(request(number)) for number in range(9)]), ENDPOINTS)
    assert [problem.code for problem in found.problems] == ["too_many_tasks"]
    assert found.total == 4


def test_a_line_longer_than_memory_allows_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dialoop.data.training_file.MAX_ROW_BYTES", 100)
    with pytest.raises(DataError, match=re.escape("line 2: longer than 100 bytes")):
        list(json_objects(write(path, [line({}), line({"a": "x" * 100})])))
