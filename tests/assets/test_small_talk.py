"""The written small talk for the base model: same seed, same rows; short, alternating, in two languages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "base" / "small_talk.py"
PER_LANGUAGE = 12_000

Row = dict[str, Any]


def _write(out: Path, count: int, seed: int) -> bytes:
    command = [sys.executable, str(SCRIPT), str(out), "--per-language", str(count), "--seed", str(seed)]
    subprocess.run(command, check=True, capture_output=True)
    return out.read_bytes()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    out = tmp_path_factory.mktemp("talk") / "talk.jsonl"
    return [json.loads(line) for line in _write(out, PER_LANGUAGE, 1).decode().splitlines()]


def _spoken(row: Row) -> list[Row]:
    return [said for said in row["messages"] if said["role"] != "system"]


def _answers(rows: list[Row], language: str) -> list[str]:
    own = [row for row in rows if row["metadata"]["language"] == language]
    return [said["content"] for row in own for said in row["messages"] if said["role"] == "assistant"]


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first = _write(tmp_path / "a.jsonl", 200, 5)
    assert first == _write(tmp_path / "b.jsonl", 200, 5)
    assert first != _write(tmp_path / "c.jsonl", 200, 6)


def test_each_language_has_the_asked_number_of_conversations(rows: list[Row]) -> None:
    counts = Counter(row["metadata"]["language"] for row in rows)
    assert counts == {"en": PER_LANGUAGE, "zh": PER_LANGUAGE}


def test_turns_alternate_and_end_with_the_assistant_after_one_to_four_exchanges(rows: list[Row]) -> None:
    for row in rows:
        roles = [said["role"] for said in _spoken(row)]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert 1 <= len(roles) // 2 <= 4
        assert all(said["role"] != "system" for said in row["messages"][1:])


def test_no_slot_or_choice_mark_is_left_unfilled(rows: list[Row]) -> None:
    texts = [said["content"] for row in rows for said in row["messages"]]
    assert [text for text in texts if set("{}<>|") & set(text)] == []
    assert all(text.strip() for text in texts)


def test_no_conversation_is_written_twice(rows: list[Row]) -> None:
    spoken = Counter(json.dumps(_spoken(row)) for row in rows)
    assert spoken.most_common(1)[0][1] == 1


def test_about_a_fifth_of_the_conversations_open_with_a_system_message(rows: list[Row]) -> None:
    share = sum(row["messages"][0]["role"] == "system" for row in rows) / len(rows)
    assert 0.15 < share < 0.3


def test_answers_are_short(rows: list[Row]) -> None:
    assert max(len(text.split()) for text in _answers(rows, "en")) <= 40
    assert max(len(text) for text in _answers(rows, "zh")) <= 60


def test_every_topic_is_written_in_both_languages(rows: list[Row]) -> None:
    english = {row["metadata"]["topic"] for row in rows if row["metadata"]["language"] == "en"}
    chinese = {row["metadata"]["topic"] for row in rows if row["metadata"]["language"] == "zh"}
    assert english == chinese
    assert len(english) > 40
