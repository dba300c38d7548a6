"""Labelled texts, tagged words and pairs from files, cleaned and split by group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dialoop.config.heads import HeadDataSettings
from dialoop.data.dataset import Dataset
from dialoop.data.head_dataset import load_head_dataset
from dialoop.data.head_rows import LABELLED, PAIRED, TAGGED, Shape
from dialoop.errors import DataError, RejectsError
from dialoop.types import Pair, Tagged

WHOLE = {"split": {"valid": 0, "test": 0}}


def load(path: Path | str, shape: Shape[Any], **settings: Any) -> Dataset[Any]:
    source = path if isinstance(path, str) else f"file:{path}"
    table = {**WHOLE, "sources": [source], **settings}
    scratch = Path(path).parent if isinstance(path, Path) else Path(table.pop("scratch"))
    return load_head_dataset(HeadDataSettings.model_validate(table), shape, scratch=scratch / "scratch")


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_texts_and_labels_come_from_json_lines_and_from_tables(tmp_path: Path) -> None:
    rows = ({"text": "Where is it?", "label": "track"}, {"text": "我想退货", "label": "return"})
    found = load(lines(tmp_path / "a.jsonl", *rows), LABELLED).train
    assert [(row.text, row.label) for row in found] == [("Where is it?", "track"), ("我想退货", "return")]
    (tmp_path / "b.csv").write_text("问句,类别\n我想退货,return\nWhere is it?,track\n", encoding="utf-8")
    named = load(tmp_path / "b.csv", LABELLED, columns={"text": "问句", "label": "类别"}).train
    assert {(row.text, row.label) for row in named} == {(row.text, row.label) for row in found}


def test_the_language_of_a_row_is_told(tmp_path: Path) -> None:
    found = load(
        lines(tmp_path / "a.jsonl", {"text": "请问我的订单在哪里", "label": "a_label_in_english"}), LABELLED
    )
    assert found.train[0].metadata["language"] == "zh"


def test_shipped_dialogues_are_labelled_by_their_intent(tmp_path: Path) -> None:
    settings = {"columns": {"label": "metadata.intent"}, "scratch": tmp_path, "limit": 60}
    split = {"group_by": ["scenario"], "valid": 0.2, "test": 0.3}
    found = load("sample:zh", LABELLED, **settings, split=split)
    parts = [{row.metadata["scenario"] for row in part} for part in (found.train, found.valid, found.test)]
    assert all(parts)
    assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
    assert {row.label for row in found.train} <= {row.metadata["intent"] for row in found.train}


def test_the_same_text_twice_is_kept_once(tmp_path: Path) -> None:
    rows = [{"text": "Hello there", "label": "greet"}] * 3
    found = load(lines(tmp_path / "a.jsonl", *rows), LABELLED)
    assert (len(found.train), found.report.rows) == (1, 3)


def test_rows_without_a_text_or_a_label_are_rejected_with_their_line(tmp_path: Path) -> None:
    good = [{"text": f"text number {i}", "label": "x"} for i in range(60)]
    bad = [{"text": "no label"}, {"text": "", "label": "x"}]
    found = load(lines(tmp_path / "a.jsonl", *good, *bad), LABELLED)
    assert [(row.line, row.reason.split(":")[0]) for row in found.rejects] == [
        (61, "has no label or intent or class or category or labels or 标签 or 类别 or 意图 or 分类"),
        (62, "the text is empty or no text"),
    ]
    with pytest.raises(RejectsError):
        load(lines(tmp_path / "a.jsonl", *good[:2], *bad), LABELLED)


def test_a_file_without_a_usable_row_says_what_to_do(tmp_path: Path) -> None:
    settings = {"clean": {"max_reject_share": 1}}
    with pytest.raises(DataError, match=r"no row is left of 0: name the columns in data\.columns"):
        load(lines(tmp_path / "a.jsonl", {"sentence_": "x"}, {"sentence_": "y"}), LABELLED, **settings)


def test_column_files_of_conll_become_sentences_in_iob2(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "-DOCSTART- -X- O O\n\nU.N. NNP I-NP I-ORG\nofficial NN I-NP O\nEkeus NNP I-NP I-PER\n\n"
        "-DOCSTART- -X- O O\n\nBerlin NNP I-NP I-LOC\n\n"
    )
    found = load(tmp_path / "a.txt", TAGGED, clean={"steps": []}).train
    assert [(row.tokens, row.tags, row.metadata["doc"]) for row in found] == [
        (("U.N.", "official", "Ekeus"), ("B-ORG", "O", "B-PER"), 1),
        (("Berlin",), ("B-LOC",), 2),
    ]


def test_tagged_json_lines_keep_their_words_as_they_are(tmp_path: Path) -> None:
    row = {"tokens": ["今天", "会", "下雨", "吗？"], "slots": ["S-date", "O", "S-weather", "O"]}
    found = load(lines(tmp_path / "a.jsonl", row), TAGGED).train
    assert found == (
        Tagged(("今天", "会", "下雨", "吗？"), ("B-date", "O", "B-weather", "O"), found[0].metadata),
    )


def test_words_and_tags_of_two_lengths_are_rejected(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl", {"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a", "b"], "tags": ["O"]}
    )
    found = load(path, TAGGED, clean={"max_reject_share": 1})
    assert [row.reason for row in found.rejects] == [
        "tokens and tags are not two lists of texts of one length"
    ]


def test_every_answer_of_a_dialogue_fits_its_history(tmp_path: Path) -> None:
    turns = [{"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye"),
                                                    ("assistant", "See you."))]  # fmt: skip
    found = load(lines(tmp_path / "a.jsonl", {"messages": turns}, {"messages": turns[:2]}), PAIRED).train
    assert [(len(pair.history.messages), pair.answer, pair.fits) for pair in found] == [
        (1, "Hello!", True), (3, "See you.", True), (1, "Hello!", True),
    ]  # fmt: skip


def test_rows_may_say_themselves_what_fits(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"question": "Hi", "answer": "Hello!", "ok": 1},
        {"question": [{"role": "user", "content": "Hi"}], "answer": "Potatoes.", "ok": False},
    )
    found: tuple[Pair, ...] = load(path, PAIRED, columns={"fits": "ok"}).train
    assert [(pair.answer, pair.fits, pair.history.messages[0].content) for pair in found] == [
        ("Hello!", True, "Hi"), ("Potatoes.", False, "Hi"),
    ]  # fmt: skip


def test_a_given_test_split_is_not_thinned_out(tmp_path: Path) -> None:
    train = lines(tmp_path / "a.jsonl", *({"text": f"text {i}", "label": "x"} for i in range(5)))
    test = lines(tmp_path / "b.jsonl", *[{"text": "text 1", "label": "x"}] * 2)
    found = load(train, LABELLED, test_sources=[f"file:{test}"])
    assert (len(found.train), len(found.test), found.leaked.exact) == (5, 2, (0, 1))
