"""Cleaning as a stream: every step does its work, counts it and lists it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from dialoop.config import CleanSettings
from dialoop.data.clean import check_rejects, clean
from dialoop.data.tally import Change, CleaningReport, StepReport, Tally
from dialoop.errors import RejectsError
from dialoop.types import Conversation, Message, ToolCall


def chat(*turns: str, **metadata: object) -> Conversation:
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[i % 2], text) for i, text in enumerate(turns)), metadata=metadata)


def said(role: str, text: str = "", **more: object) -> Message:
    return Message(role, text, **more)  # type: ignore[arg-type]


def run(
    rows: Iterable[Conversation], scratch: Path, **settings: object
) -> tuple[list[Conversation], CleaningReport, list[Change]]:
    changes: list[Change] = []
    tally = Tally(changes.append)
    kept = list(clean(rows, CleanSettings(**settings), scratch=scratch, tally=tally))  # type: ignore[arg-type]
    return kept, tally.report(), changes


def step(report: CleaningReport, name: str) -> StepReport:
    return next(step for step in report.steps if step.step == name)


def test_a_clean_conversation_passes_every_step_as_it_is(tmp_path: Path) -> None:
    row = chat("Where is my order?", "It left our warehouse this morning.", language="en")
    steps = ("unicode", "html", "roles", "turns", "language", "quality", "pii", "exact", "near")
    kept, report, changes = run([row], tmp_path, steps=steps)
    assert kept == [row]
    assert changes == []
    assert [s.seen for s in report.steps] == [1] * 9


def test_scratch_is_empty_when_the_stream_ends_and_when_it_is_abandoned(tmp_path: Path) -> None:
    rows = [chat(f"question number {i} about parcels", f"answer number {i * 7919}") for i in range(600)]
    run(rows, tmp_path)
    assert list(tmp_path.iterdir()) == []
    stream = clean(rows, CleanSettings(), scratch=tmp_path)
    next(stream)
    assert list(tmp_path.iterdir()) != []
    stream.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_every_change_is_counted_by_reason_and_listed_by_row(tmp_path: Path) -> None:
    rows = [chat("hi\u200b there", "<p>Hello</p>", id="a"), chat("how are you", "fine\r\nthanks")]
    kept, report, changes = run(rows, tmp_path)
    assert kept[0].messages[0].content == "hi there"
    assert kept[0].messages[1].content == "Hello"
    assert kept[1].messages[1].content == "fine\nthanks"
    assert [(c.row, c.step, c.what) for c in changes] == [
        ("a", "unicode", "invisible character"),
        ("a", "html", "tag"),
        ("#2", "unicode", "line end"),
    ]
    assert step(report, "unicode").changed == 2
    assert dict(step(report, "unicode").what) == {"invisible character": 1, "line end": 1}


def test_no_content_is_repeated_in_the_list_of_changes(tmp_path: Path) -> None:
    rows = [chat("my mail is secret.person@example.com", "<b>secret answer</b> ok", id="someone@example.com")]
    _, report, changes = run(rows, tmp_path, steps=("html", "pii"))
    listed = " ".join(change.to_json() for change in changes) + str(report.to_dict()) + report.to_text("zh")
    assert "secret" not in listed
    assert "example.com" not in listed
    assert len(changes) == 2


def test_consecutive_turns_of_one_role_are_merged(tmp_path: Path) -> None:
    row = Conversation(
        (said("user", "hello"), said("user", "anyone?"), said("assistant", "Yes, how can I help?"))
    )
    kept, report, _ = run([row], tmp_path)
    assert [m.content for m in kept[0].messages] == ["hello\nanyone?", "Yes, how can I help?"]
    assert step(report, "roles").changed == 1


def test_turns_of_other_weights_are_not_merged(tmp_path: Path) -> None:
    row = Conversation(
        (
            said("user", "hello"),
            said("assistant", "bad start", weight=0.0),
            said("assistant", "good end", weight=1.0),
        )
    )
    kept, _, _ = run([row], tmp_path)
    assert kept[0].messages == row.messages


def test_a_leading_assistant_turn_is_dropped_and_counted(tmp_path: Path) -> None:
    row = Conversation(
        (
            said("system", "Be kind."),
            said("assistant", "Welcome!"),
            said("user", "hello"),
            said("assistant", "Hi, you."),
        )
    )
    kept, report, _ = run([row], tmp_path)
    assert [m.role for m in kept[0].messages] == ["system", "user", "assistant"]
    assert dict(step(report, "roles").what) == {"leading assistant turn": 1}


CALL = ToolCall("call_1", "find_order", '{"number": "12"}')


def test_a_tool_turn_that_answers_its_call_is_kept(tmp_path: Path) -> None:
    row = Conversation(
        (
            said("user", "where is order 12?"),
            said("assistant", tool_calls=(CALL,)),
            said("tool", '{"state": "sent"}', tool_call_id="call_1"),
            said("assistant", "It has been sent."),
        )
    )
    kept, report, _ = run([row], tmp_path)
    assert kept[0].messages == row.messages
    assert report.rejected == 0


@pytest.mark.parametrize(
    "messages",
    [
        (said("user", "hi"), said("tool", "{}", tool_call_id="call_1"), said("assistant", "hello there")),
        (
            said("user", "hi"),
            said("assistant", tool_calls=(CALL,)),
            said("tool", "{}", tool_call_id="call_9"),
        ),
    ],
)
def test_a_tool_turn_without_its_call_rejects_the_row(messages: tuple[Message, ...], tmp_path: Path) -> None:
    kept, report, changes = run([Conversation(messages)], tmp_path)
    assert kept == []
    assert report.rejected == 1
    assert changes[-1].what == "tool turn without a call"


def test_empty_turns_are_dropped_and_their_neighbours_merged(tmp_path: Path) -> None:
    row = Conversation(
        (said("user", "one"), said("assistant", " "), said("user", "two"), said("assistant", "three ok"))
    )
    kept, report, _ = run([row], tmp_path)
    assert [m.content for m in kept[0].messages] == ["one\ntwo", "three ok"]
    assert step(report, "turns").changed == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat("a question", "x" * 101), "turn too long"),
        (chat("only a question"), "no assistant turn"),
        (Conversation((said("assistant", "only an answer"),)), "no user turn"),
        (chat(*["a turn of the talk"] * 12), "too many turns"),
        (Conversation(()), "no user turn"),
    ],
)
def test_a_row_that_cannot_be_learnt_from_is_rejected_with_its_reason(
    row: Conversation, reason: str, tmp_path: Path
) -> None:
    kept, report, changes = run([row], tmp_path, max_turn_chars=100, max_turns=10)
    assert kept == []
    assert (report.rejected, report.reject_share) == (1, 1.0)
    assert changes[-1].what == reason


def test_the_language_is_set_where_it_is_missing_and_doubted_where_it_is_wrong(tmp_path: Path) -> None:
    rows = [
        chat("我的订单在哪里", "已经发货了，请耐心等待"),
        chat("where is it", "it is on the way", language="zh"),
        chat("where is it now", "it is still on the way", language="en-GB"),
    ]
    kept, report, changes = run(rows, tmp_path)
    assert [c.metadata["language"] for c in kept] == ["zh", "zh", "en-GB"]
    assert [c.what for c in changes] == ["language disagrees"]
    assert dict(report.labels) == {"en": 2, "zh": 1}


def test_unwanted_languages_are_removed_but_are_no_rejects(tmp_path: Path) -> None:
    rows = [chat("我的订单在哪里", "已经发货了"), chat("where is it", "it is on the way")]
    kept, report, _ = run(rows, tmp_path, languages=("zh",))
    assert [c.messages[0].content for c in kept] == ["我的订单在哪里"]
    assert step(report, "language").removed == 1
    assert report.rejected == 0


def test_flags_mark_rows_and_remove_only_those_that_were_asked_for(tmp_path: Path) -> None:
    rows = [
        chat("what is your name", "Hello {{name}}, how are you"),
        chat("tell me", "no no no no no no no no no no"),
    ]
    kept, report, _ = run(rows, tmp_path)
    assert [c.metadata["flags"] for c in kept] == [["placeholder"], ["repetition"]]
    assert step(report, "quality").flagged == 2
    kept, report, _ = run(rows, tmp_path, drop_flags=("repetition",))
    assert len(kept) == 1
    assert step(report, "quality").removed == 1


def test_exact_duplicates_keep_the_first_whatever_their_metadata(tmp_path: Path) -> None:
    rows = [chat("hello", "good day", id=str(i)) for i in range(3)] + [chat("good day", "hello", id="3")]
    kept, report, changes = run(rows, tmp_path, steps=("exact",))
    assert [c.metadata["id"] for c in kept] == ["0", "3"]
    assert [c.row for c in changes] == ["1", "2"]
    assert step(report, "exact").removed == 2


def test_duplicates_are_found_across_many_batches(tmp_path: Path) -> None:
    rows = [chat(f"question {i % 3000}", f"answer {i % 3000}") for i in range(9000)]
    kept, report, _ = run(rows, tmp_path, steps=("exact",))
    assert [c.messages[0].content for c in kept] == [f"question {i}" for i in range(3000)]
    assert report.kept == 3000


def test_steps_run_in_their_own_order_whatever_the_order_given(tmp_path: Path) -> None:
    rows = [chat("hello", "<b>hi there</b>"), chat("hello", "hi there")]
    kept, report, _ = run(rows, tmp_path, steps=("exact", "html"))
    assert len(kept) == 1
    assert [s.step for s in report.steps] == ["html", "exact"]


def test_too_many_rejects_are_an_error_that_says_how_many(tmp_path: Path) -> None:
    rows = [chat("no answer")] + [chat(f"question {i}", "an answer") for i in range(9)]
    _, report, _ = run(rows, tmp_path)
    check_rejects(report, 0.1)
    with pytest.raises(RejectsError, match=r"1 of 10 rows were rejected \(10.0%\), at most 5.0% may be"):
        check_rejects(report, 0.05)


def test_the_report_reads_in_english_and_in_chinese(tmp_path: Path) -> None:
    _, report, _ = run([chat("hi\u200b", "<b>hello there</b>"), chat("only a question")], tmp_path)
    assert "2 rows read, 1 kept, 1 rejected (50.0%)" in report.to_text("en")
    assert "| HTML and boilerplate | 2 | 1 | 0 | 0 | tag 1 |" in report.to_text("en")
    assert "读入 2 行，保留 1 行，拒收 1 行（50.0%）" in report.to_text("zh")
    assert "| HTML 与套话 | 2 | 1 | 0 | 0 | 标签 1 |" in report.to_text("zh")
    assert report.to_dict()["steps"][1]["what"] == {"tag": 1}


def test_progress_is_told_the_rows_so_far(tmp_path: Path) -> None:
    told: list[int] = []
    rows = (chat(f"question {i}", f"answer {i}") for i in range(600))
    list(clean(rows, CleanSettings(steps=("unicode",)), scratch=tmp_path, on_progress=told.append))
    assert told == [256, 512]
