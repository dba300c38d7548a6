"""CLUE's rows become questions with the right answer and its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dialoop.data.sources import Rejected, conversations, detect, read
from dialoop.types import Conversation

READING = [
    ["小明买了一本书。"],
    [{"question": "小明买了什么？", "choice": ["书", "笔"], "answer": "书"}],
    "1",
]
NO, INFERENCE = ["否", "是"], ["蕴含", "中立", "矛盾"]
PRONOUN = {"target": {"span1_text": "伤口", "span2_text": "它们"}, "label": "false", "text": "它们疼"}
ROWS: list[tuple[Any, str, list[str] | None]] = [
    ({"sentence1": "怎么还款", "sentence2": "如何还钱", "label": "1"}, "是", NO),
    ({"sentence1": "他在跑步", "sentence2": "他在睡觉", "label": "contradiction"}, "矛盾", INFERENCE),
    ({"label": "102", "label_desc": "news_game", "sentence": "江疏影甜甜圈自拍"}, "news_game", None),
    ({"label": "110", "label_des": "社区超市", "sentence": "朴朴快送超市"}, "社区超市", None),
    ({"abst": "本文研究边坡。", "keyword": ["边坡", "位移"], "label": "0", "id": 1}, "否", NO),
    (PRONOUN, "否", NO),
    (READING, "书", ["书", "笔"]),
]


def read_all(path: Path) -> tuple[list[Conversation], list[Rejected]]:
    rejected: list[Rejected] = []
    return list(conversations(read(path, on_reject=rejected.append), rejected.append)), rejected


@pytest.mark.parametrize(("row", "answer", "options"), ROWS)
def test_each_task_is_told_by_its_keys(
    tmp_path: Path, row: Any, answer: str, options: list[str] | None
) -> None:
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    if isinstance(row, list):  # C3 is one array
        path.write_text(json.dumps([row], ensure_ascii=False), encoding="utf-8")
    assert detect(path).format == "clue"
    (found,), rejected = read_all(path)
    assert rejected == []
    assert found.answer == answer
    assert found.metadata.get("options") == options
    assert found.metadata["language"] == "zh"


def test_rows_without_a_label_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    rows = [{"sentence1": "a", "sentence2": "b"}, {"sentence1": "a", "sentence2": "b", "label": "-"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found, rejected = read_all(path)
    assert found == []
    assert ["test splits" in each.reason for each in rejected] == [True, False]
    assert "without agreement" in rejected[1].reason
