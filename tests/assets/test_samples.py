"""The shipped sample dialogues equal what their generator makes, and keep the promises of their README."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "src" / "dialoop" / "assets" / "samples"
GENERATOR = ROOT / "tools" / "samples"
ORDER = {"en": re.compile(r"\b[A-Z]\d{5}\b"), "zh": re.compile(r"(?:SY|DH|LM)\d{6}")}
CHINESE = re.compile(r"[\u4e00-\u9fff]")
LATIN_WORD = re.compile(r"[a-z]{4,}")
EMAIL = re.compile(r"\S*@\S*", re.ASCII)

both_languages = pytest.mark.parametrize("language", ["en", "zh"])


@cache
def rows(language: str) -> list[dict[str, Any]]:
    text = (SAMPLES / f"{language}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def said_by(row: dict[str, Any], role: str) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == role]


def generator() -> Any:
    sys.path.insert(0, str(GENERATOR))
    try:
        return importlib.import_module("generate")
    finally:
        sys.path.remove(str(GENERATOR))


@both_languages
def test_the_shipped_file_is_byte_for_byte_what_the_generator_makes(language: str) -> None:
    made = generator().jsonl(language)
    same = made.encode() == (SAMPLES / f"{language}.jsonl").read_bytes()
    assert same, "run `python tools/samples/generate.py` and commit what it writes"


@both_languages
def test_there_are_enough_conversations_scenarios_and_intents(language: str) -> None:
    metadata = [row["metadata"] for row in rows(language)]
    assert len(metadata) >= 800
    assert len({entry["scenario"] for entry in metadata}) >= 75
    assert len({entry["intent"] for entry in metadata}) >= 14


def test_both_files_together_stay_small() -> None:
    assert sum((SAMPLES / f"{language}.jsonl").stat().st_size for language in ("en", "zh")) < 2_500_000


@both_languages
def test_customer_and_desk_alternate_and_the_desk_speaks_last(language: str) -> None:
    for row in rows(language):
        roles = [message["role"] for message in row["messages"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert 1 <= len(turns) // 2 <= 5
        assert all(message["content"].strip() == message["content"] != "" for message in row["messages"])


@both_languages
def test_single_and_longer_conversations_and_system_messages_are_mixed(language: str) -> None:
    shown = rows(language)
    single = sum(len(said_by(row, "assistant")) == 1 for row in shown) / len(shown)
    instructed = sum(row["messages"][0]["role"] == "system" for row in shown) / len(shown)
    assert 0.3 < single < 0.5
    assert 0.15 < instructed < 0.35


@both_languages
def test_no_two_conversations_begin_with_the_same_words(language: str) -> None:
    firsts = Counter(said_by(row, "user")[0] for row in rows(language))
    assert max(firsts.values()) == 1


@both_languages
def test_no_answer_is_given_more_than_four_times(language: str) -> None:
    answers = Counter(answer for row in rows(language) for answer in said_by(row, "assistant"))
    assert max(answers.values()) <= 4


@both_languages
def test_an_answer_names_a_detail_only_after_it_was_said(language: str) -> None:
    for row in rows(language):
        details = set(row["metadata"]["slots"].values())
        heard = ""
        for message in row["messages"]:
            if message["role"] == "assistant":
                orders = set(ORDER[language].findall(message["content"]))
                used = {detail for detail in details if detail in message["content"]} | orders
                unheard = {detail for detail in used if detail.lower() not in heard.lower()}
                assert not unheard, row["metadata"]["template"]
            heard += "\n" + message["content"]


@both_languages
def test_most_conversations_with_an_order_number_hear_it_back(language: str) -> None:
    told = answered = 0
    for row in rows(language):
        orders = set(ORDER[language].findall("\n".join(said_by(row, "user"))))
        told += bool(orders)
        answered += bool(orders & set(ORDER[language].findall("\n".join(said_by(row, "assistant")))))
    assert told > 300
    assert answered / told > 0.95


@both_languages
def test_every_row_is_labelled_so_that_it_can_be_split_and_mined(language: str) -> None:
    for row in rows(language):
        metadata = row["metadata"]
        assert set(metadata) == {"language", "intent", "scenario", "template", "customer", "slots"}
        assert metadata["language"] == language
        assert metadata["scenario"].split("/")[0] == metadata["intent"]
        assert re.fullmatch(re.escape(metadata["scenario"]) + r"/\d+", metadata["template"])
        assert re.fullmatch(r"c\d{4}", metadata["customer"])
    assert len({row["metadata"]["customer"] for row in rows(language)}) == len(rows(language))


def test_chinese_rows_are_chinese_and_english_rows_are_not() -> None:
    for row in rows("zh"):
        for message in row["messages"]:
            assert not LATIN_WORD.search(EMAIL.sub("", message["content"])), row["metadata"]["template"]
        assert CHINESE.search("".join(said_by(row, "user")))
        assert all(CHINESE.search(answer) for answer in said_by(row, "assistant"))
    assert not any(CHINESE.search(message["content"]) for row in rows("en") for message in row["messages"])


@both_languages
def test_no_slot_or_choice_mark_is_left_in_a_text(language: str) -> None:
    for row in rows(language):
        for message in row["messages"]:
            assert not re.search(r"[{}\[\]|#~^]", message["content"]), message["content"]


@both_languages
def test_addresses_are_reserved_example_domains_only(language: str) -> None:
    text = "\n".join(message["content"] for row in rows(language) for message in row["messages"])
    domains = set(re.findall(r"@([a-z0-9-]+(?:\.[a-z]+)+)", text))
    assert domains
    assert domains <= {"example.com", "example.org", "example.net"}


@both_languages
def test_the_wording_varies(language: str) -> None:
    """Distinct-2 over all answers: words in English, characters in Chinese."""
    answers = [answer for row in rows(language) for answer in said_by(row, "assistant")]
    parts = [answer.lower().split() if language == "en" else list(answer) for answer in answers]
    pairs = [pair for part in parts for pair in pairwise(part)]
    assert len(set(pairs)) / len(pairs) > {"en": 0.25, "zh": 0.13}[language]
    assert len(set(answers)) / len(answers) > 0.85
