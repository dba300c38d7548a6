"""Preferences are cleaned, split and written as conversations are, both answers beside each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dialoop.config import CleanSettings, DataSettings
from dialoop.data.clean import clean
from dialoop.data.cleaning import Input, clean_files
from dialoop.data.contrast import Contrast
from dialoop.data.dataset import load_dataset, load_preferences
from dialoop.data.parting import split_files
from dialoop.data.rejects import Rejected
from dialoop.data.sources import read
from dialoop.data.tally import Change, Tally
from dialoop.errors import RejectsError
from dialoop.types import Conversation, Message, Preference

STEPS = ("unicode", "html", "roles", "turns", "language", "quality", "pii", "exact", "near")
TOPICS = (
    "parcels",
    "refunds",
    "sizes",
    "returns",
    "colours",
    "couriers",
    "coupons",
    "stock",
    "gifts",
    "bills",
)


def said(role: Any, text: str) -> Message:
    return Message(role, text)


def preference(
    question: str = "Where is my order?", chosen: str = "It left this morning.", rejected: str = "No idea."
) -> Preference:
    history = Conversation((said("user", question),), metadata={"language": "en"})
    return Preference(history, said("assistant", chosen), said("assistant", rejected))


def later(row: Preference) -> Preference:
    """The same after an exchange that went before."""
    before = (said("user", "Hello?"), said("assistant", "Good day."))
    return replace(row, history=replace(row.history, messages=(*before, *row.history.messages)))


def cleaned(scratch: Path, *rows: Preference, **settings: Any) -> tuple[list[Preference], list[Change]]:
    changes: list[Change] = []
    how = CleanSettings(**{"steps": STEPS, **settings})
    kept = clean(map(Contrast.of, rows), how, scratch=scratch, tally=Tally(changes.append))
    return [row.preference for row in kept if isinstance(row, Contrast)], changes


def test_a_contrast_gives_its_preference_back() -> None:
    assert Contrast.of(preference()).preference == preference()


def test_a_clean_preference_passes_every_step_as_it_is(tmp_path: Path) -> None:
    assert cleaned(tmp_path, preference()) == ([preference()], [])


def test_both_answers_are_normalised_and_masked_alike(tmp_path: Path) -> None:
    row = preference(
        "Write to bob@example.com", "Bob at bob@example.com,  yes\u200b", "<b>bob@example.com</b> no"
    )
    (kept,), _ = cleaned(tmp_path, row)
    assert kept.history.messages[0].content == "Write to [EMAIL_1]"
    assert kept.chosen.content.startswith("Bob at [EMAIL_1],")
    assert "\u200b" not in kept.chosen.content
    assert kept.rejected.content == "[EMAIL_1] no"


def test_turns_of_one_role_are_merged_in_the_history_and_never_the_two_answers(tmp_path: Path) -> None:
    row = preference()
    twice = replace(row.history, messages=(said("user", "Hello."), *row.history.messages))
    (kept,), changes = cleaned(tmp_path, replace(row, history=twice))
    assert [m.content for m in kept.history.messages] == ["Hello.\nWhere is my order?"]
    assert (kept.chosen, kept.rejected) == (row.chosen, row.rejected)
    assert [change.what for change in changes] == ["merged turns of one role"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (preference(rejected=""), "no assistant turn"),
        (preference(chosen=""), "no assistant turn"),
        (preference(rejected="x" * 9000), "turn too long"),
        (later(preference(rejected="")), "an answer is empty"),
    ],
)
def test_a_side_that_cannot_be_used_rejects_the_pair(row: Preference, why: str, tmp_path: Path) -> None:
    kept, changes = cleaned(tmp_path, preference(), row)
    assert kept == [preference()]
    (change,) = changes
    assert (change.step, change.action) == ("turns", "removed")
    assert why in change.what


def test_what_is_wrong_with_a_rejected_answer_is_no_flag(tmp_path: Path) -> None:
    bad = "no no no no no no no no no no no no"
    assert cleaned(tmp_path, preference(rejected=bad)) == ([preference(rejected=bad)], [])
    _, changes = cleaned(tmp_path, preference(chosen=bad))
    assert [change.action for change in changes] == ["flagged"]


def test_pairs_are_duplicates_only_where_both_answers_are(tmp_path: Path) -> None:
    other = preference(rejected="Nobody here knows anything about orders, sorry about that, dear customer.")
    kept, _ = cleaned(tmp_path, preference(), other, preference())
    assert kept == [preference(), other]


def write(path: Path, count: int = 40, *more: dict[str, Any]) -> Path:
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": f"Ask {i} about {TOPICS[i % 10]}"}]},
            "preferred_output": [{"role": "assistant", "content": f"Sure, {TOPICS[i * 7 % 10]}, {i * i}."}],
            "non_preferred_output": [{"role": "assistant", "content": f"No {TOPICS[i * 3 % 10]}."}],
            "metadata": {"scenario": f"s{i % 8}"},
        }
        for i in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in (*rows, *more)), encoding="utf-8")
    return path


def items(path: Path) -> list[Any]:
    rejects: list[Rejected] = []
    found = list(read(path, on_reject=rejects.append))
    assert not rejects
    return found


def test_a_file_of_preferences_stays_one_when_it_is_cleaned_and_split(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl")
    steps: Any = ("unicode", "roles", "turns")
    done = clean_files(Input((source,)), CleanSettings(steps=steps), tmp_path / "out")
    assert done.report.kept == 40
    assert done.turns == ((2, 40),)
    assert items(tmp_path / "out" / "clean.jsonl") == items(source)
    settings = DataSettings(sources=("x",)).split
    parted = split_files(Input((source,)), settings, tmp_path / "parts", check_leaks=False)
    assert parted.rule.startswith("by metadata key 'scenario'")
    parts = [items(tmp_path / "parts" / f"{part}.jsonl") for part in parted.rows]
    assert all(isinstance(item, Preference) for part in parts for item in part)
    groups = [{item.history.metadata["scenario"] for item in part} for part in parts]
    assert sum(map(len, groups)) == 8


def test_a_run_on_preferences_gets_pairs_and_an_imitating_one_their_chosen_sides(tmp_path: Path) -> None:
    settings = DataSettings(
        sources=(f"file:{write(tmp_path / 'rows.jsonl')}",), clean=CleanSettings(steps=())
    )
    pairs = load_preferences(settings, scratch=tmp_path)
    assert {type(row) for part in (pairs.train, pairs.valid, pairs.test) for row in part} == {Preference}
    plain = load_dataset(settings, scratch=tmp_path)
    chosen = {row.conversation.messages for part in (pairs.train, pairs.valid, pairs.test) for row in part}
    assert chosen == {row.messages for part in (plain.train, plain.valid, plain.test) for row in part}


def test_rows_without_a_preference_are_rejects_of_a_run_on_preferences(tmp_path: Path) -> None:
    same = {"prompt": "q", "chosen": "a", "rejected": "a"}
    path = write(tmp_path / "rows.jsonl", 3, same)
    settings = DataSettings(sources=(f"file:{path}",), format="preference")
    with pytest.raises(RejectsError, match="1 of 4 rows were rejected"):
        load_preferences(settings, scratch=tmp_path)
    chats = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    chats.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    with pytest.raises(RejectsError, match="1 of 1 rows were rejected"):
        load_preferences(DataSettings(sources=(f"file:{chats}",)), scratch=tmp_path)
