"""The split: deterministic, by group, stable, and never through a family of twins."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialoop.config import DataSettings, SplitSettings
from dialoop.data.dataset import content_hash, load_dataset
from dialoop.data.leak import leaks
from dialoop.data.split import Part, split, split_rows
from dialoop.data.writer import write_openai
from dialoop.errors import DataError, RejectsError
from dialoop.types import Conversation, Message

WORDS = [f"word{i}" for i in range(400)]


def row(i: int, **metadata: object) -> Conversation:
    rng = random.Random(i)
    text = " ".join(rng.choice(WORDS) for _ in range(30))
    return Conversation((Message("user", f"question {i}"), Message("assistant", text)), metadata=metadata)


def parts_of(rows: list[Conversation], scratch: Path, **how: object) -> list[Part]:
    return [part for part, _ in split(lambda: rows, SplitSettings(**how), scratch=scratch)]  # type: ignore[arg-type]


def test_rows_of_one_group_are_never_apart(tmp_path: Path) -> None:
    rows = [row(i, scenario=f"s{i % 40}") for i in range(400)]
    homes = defaultdict(set)
    for part, conversation in split(lambda: rows, SplitSettings(), scratch=tmp_path):
        homes[conversation.metadata["scenario"]].add(part)
    assert len(homes) == 40
    assert all(len(parts) == 1 for parts in homes.values())


def test_the_first_key_that_all_rows_have_names_the_group(tmp_path: Path) -> None:
    rows = [row(i, customer=f"c{i % 30}", **({"scenario": "s"} if i else {})) for i in range(90)]
    _, planned = split_rows(rows, SplitSettings(), scratch=tmp_path)
    assert planned.rule.startswith("by metadata key 'customer'")
    assert planned.groups == 30


def test_without_a_key_twins_stay_together(tmp_path: Path) -> None:
    rows = []
    for i in range(120):
        base = row(i)
        words = base.messages[1].content.split()
        words[3] = "changed"
        rows += [base, Conversation((base.messages[0], Message("assistant", " ".join(words))))]
    found, planned = split_rows(rows, SplitSettings(test=0.3, valid=0.2), scratch=tmp_path)
    assert planned.rule.startswith("by clusters of near-duplicates")
    assert min(len(part) for part in found.values()) > 20
    assert leaks(found["train"], found["test"]).share == 0
    assert leaks(found["train"], found["valid"]).share == 0


def test_rows_added_later_move_no_row(tmp_path: Path) -> None:
    rows = [row(i, scenario=f"s{i}") for i in range(300)]
    before = parts_of(rows[:200], tmp_path)
    assert parts_of(rows, tmp_path)[:200] == before
    content = [row(i) for i in range(300)]
    assert parts_of(content, tmp_path)[:200] == parts_of(content[:200], tmp_path)


def test_shares_come_near_what_was_asked_and_the_seed_moves_groups(tmp_path: Path) -> None:
    rows = [row(i, scenario=f"s{i}") for i in range(2000)]
    first = parts_of(rows, tmp_path, test=0.2, valid=0.1)
    assert first.count("test") / 2000 == pytest.approx(0.2, abs=0.03)
    assert first.count("valid") / 2000 == pytest.approx(0.1, abs=0.03)
    assert parts_of(rows, tmp_path, test=0.2, valid=0.1) == first
    assert parts_of(rows, tmp_path, test=0.2, valid=0.1, seed=1) != first


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    groups=st.integers(3, 12),
    seed=st.integers(0, 10**6),
    valid=st.floats(0.01, 0.4),
    test=st.floats(0.01, 0.5),
)
def test_three_groups_are_enough_for_no_part_to_be_empty(
    groups: int, seed: int, valid: float, test: float, tmp_path: Path
) -> None:
    rows = [row(i % 5, scenario=f"s{i}") for i in range(groups)]
    assert set(parts_of(rows, tmp_path, seed=seed, valid=valid, test=test)) == {"train", "valid", "test"}


def test_a_part_that_was_not_asked_for_stays_empty(tmp_path: Path) -> None:
    rows = [row(i, scenario=f"s{i}") for i in range(50)]
    assert set(parts_of(rows, tmp_path, test=0.0)) == {"train", "valid"}
    assert set(parts_of(rows, tmp_path, test=0.0, valid=0.0)) == {"train"}


def test_no_rows_make_no_split(tmp_path: Path) -> None:
    assert parts_of([], tmp_path) == []


def data(path: Path, rows: list[Conversation], **more: object) -> DataSettings:
    write_openai(path, rows)
    return DataSettings(sources=(f"file:{path}",), **more)  # type: ignore[arg-type]


def test_a_dataset_is_read_cleaned_and_split(tmp_path: Path) -> None:
    rows = [row(i, scenario=f"s{i % 30}", id=str(i)) for i in range(90)]
    settings_ = data(tmp_path / "a.jsonl", [*rows, rows[0]])
    dataset = load_dataset(settings_, scratch=tmp_path / "scratch")
    assert len(dataset.train) + len(dataset.valid) + len(dataset.test) == 90
    assert dataset.report.rows == 91
    assert dataset.split_rule == "by metadata key 'scenario'; valid 0.05, test 0.1, seed 0"
    assert dataset.leaked.share == 0
    assert load_dataset(settings_, scratch=tmp_path / "scratch") == dataset


def test_the_content_hash_sees_every_row_and_their_order() -> None:
    rows = [row(i) for i in range(3)]
    assert content_hash(rows) == content_hash(list(rows))
    assert content_hash(rows) != content_hash(rows[::-1])
    assert content_hash(rows) != content_hash(rows[:2])


def test_a_given_test_split_is_kept_whole_and_its_leaks_are_told(tmp_path: Path) -> None:
    rows = [row(i, scenario=f"s{i % 20}") for i in range(60)]
    write_openai(tmp_path / "test.jsonl", [rows[0], rows[0], row(1000)])
    settings_ = data(
        tmp_path / "train.jsonl",
        rows,
        test_sources=(f"file:{tmp_path / 'test.jsonl'}",),
        split={"valid": 0.0},
    )
    dataset = load_dataset(settings_, scratch=tmp_path / "scratch")
    assert len(dataset.test) == 3
    assert (len(dataset.train), len(dataset.valid)) == (60, 0)
    assert dataset.split_rule.endswith("test split given")
    assert (dataset.leaked.exact, dataset.leaked.near) == ((0, 1), ())


def test_too_many_bad_rows_stop_a_training_run(tmp_path: Path) -> None:
    settings_ = data(tmp_path / "a.jsonl", [row(i) for i in range(10)])
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(RejectsError, match="1 of 11 rows were rejected"):
        load_dataset(settings_, scratch=tmp_path / "scratch")


def test_a_source_without_a_usable_row_is_an_error(tmp_path: Path) -> None:
    settings_ = data(tmp_path / "a.jsonl", [row(1)], clean={"languages": ("zh",)})
    with pytest.raises(DataError, match="no row is left of 1"):
        load_dataset(settings_, scratch=tmp_path / "scratch")


def test_the_limit_counts_rows_of_each_source(tmp_path: Path) -> None:
    dataset = load_dataset(
        data(tmp_path / "a.jsonl", [row(i) for i in range(30)], limit=12), scratch=tmp_path
    )
    assert dataset.report.rows == 12
