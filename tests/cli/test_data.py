"""`dialoop data` from the command line: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dialoop.cli.data import app
from dialoop.errors import ConfigError, DataError, RejectsError
from dialoop.store.database import writing
from dialoop.store.registry import Store
from dialoop.store.stored import StoredCompletion

WORDS = [f"word{i}" for i in range(300)]


def chat(i: int, **more: Any) -> dict[str, Any]:
    rng = random.Random(i)
    answer = " ".join(rng.choice(WORDS) for _ in range(25))
    turns = [{"role": "user", "content": f"question number {i}"}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def save(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [chat(i, metadata={"scenario": f"s{i % 12}"}) for i in range(60)]
    mail = {"role": "user", "content": "I am bob@example.com"}
    return save(
        tmp_path / "chats.jsonl",
        [*rows, rows[0], {"messages": [mail, {"role": "assistant", "content": "Welcome, Bob!"}]}],
    )


def test_check_says_what_a_file_is_and_writes_nothing(file: Path) -> None:
    result = run("check", file)
    assert result.exit_code == 0
    assert "openai, jsonl, utf-8" in result.stdout
    assert "62 rows read, 61 kept, 0 rejected" in result.stdout
    assert "| exact duplicates | 62 | 0 | 1 | 0 | duplicate 1 |" in result.stdout
    assert "| personal data | 62 | 1 | 0 | 0 | email 1 |" in result.stdout
    assert list(file.parent.iterdir()) == [file]


def test_check_speaks_chinese(file: Path) -> None:
    result = run("check", file, "--lang", "zh")
    assert "读入 62 行，保留 61 行" in result.stdout
    assert "| 完全重复 |" in result.stdout


def test_clean_writes_the_rows_the_changes_and_the_report(file: Path, tmp_path: Path) -> None:
    result = run("clean", file, "--out", tmp_path / "out", "--pii")
    assert result.exit_code == 0
    kept = rows_of(tmp_path / "out" / "clean.jsonl")
    assert len(kept) == 61
    assert kept[-1]["messages"][0]["content"] == "I am [EMAIL_1]"
    assert "bob@example.com" not in "".join(p.read_text() for p in (tmp_path / "out").iterdir())
    assert {c["step"] for c in rows_of(tmp_path / "out" / "changes.jsonl")} == {"exact", "pii"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["rows"], report["kept"]) == (62, 61)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "62 rows read" in text
    assert "读入 62 行" in text
    assert not (tmp_path / "out" / "rejects.jsonl").exists()


def test_a_dry_run_prints_the_report_and_writes_nothing(file: Path, tmp_path: Path) -> None:
    result = run("clean", file, "--out", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert "62 rows read, 61 kept" in result.stdout
    assert list(tmp_path.iterdir()) == [file]


def test_more_rejects_than_allowed_end_in_an_error_after_writing_what_was_good(tmp_path: Path) -> None:
    bad = {"messages": [{"role": "user", "content": "no answer"}]}
    file = save(tmp_path / "a.jsonl", [chat(1), "{broken", chat(2), bad])
    result = run("clean", file, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert isinstance(result.exception, RejectsError)
    assert len(rows_of(tmp_path / "out" / "clean.jsonl")) == 2
    rejects = rows_of(tmp_path / "out" / "rejects.jsonl")
    assert [(r["file"], r["line"]) for r in rejects] == [(str(file), 2), (str(file), 4)]
    assert rejects[1]["reason"] == "turns: no assistant turn"
    assert run("clean", file, "--out", tmp_path / "out", "--max-reject-share", "0.5").exit_code == 0


def test_chosen_steps_alone_are_run(file: Path, tmp_path: Path) -> None:
    run("clean", file, "--out", tmp_path / "out", "--steps", "unicode,turns")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [step["step"] for step in report["steps"]] == ["unicode", "turns"]


def test_a_table_is_read_by_its_columns(tmp_path: Path) -> None:
    table = tmp_path / "faq.csv"
    table.write_text("Frage,Antwort\nwhere is it,on the way to you\nhow much,ten euros for you\n")
    columns = ("--column", "user=Frage", "--column", "assistant=Antwort")
    assert run("clean", table, "--out", tmp_path / "out", *columns).exit_code == 0
    assert rows_of(tmp_path / "out" / "clean.jsonl")[0]["messages"][1]["content"] == "on the way to you"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "unicod"), "did you mean 'unicode'"),
        (("--format", "openia"), "did you mean 'openai'"),
        (("--column", "user"), "FIELD=COLUMN"),
        (("--near-threshold", "1.5"), "near_threshold"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_the_right_one(
    arguments: tuple[str, ...], message: str, file: Path, tmp_path: Path
) -> None:
    result = run("clean", file, "--out", tmp_path / "out", *arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_failed_run_leaves_the_earlier_result_as_it_was(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("clean", file, "--out", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    result = run("clean", file, tmp_path / "missing.jsonl", "--out", out)
    assert isinstance(result.exception, DataError)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_an_interrupt_leaves_no_half_files(file: Path, tmp_path: Path) -> None:
    from dialoop.config import CleanSettings
    from dialoop.data.cleaning import Input, clean_files

    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    many = save(tmp_path / "many.jsonl", [chat(i) for i in range(300)])
    with pytest.raises(KeyboardInterrupt):
        clean_files(Input((many,)), CleanSettings(), tmp_path / "out", on_progress=interrupt)
    assert not (tmp_path / "out").exists()


def test_split_writes_three_files_by_group(file: Path, tmp_path: Path) -> None:
    source = save(
        tmp_path / "grouped.jsonl", [chat(i, metadata={"scenario": f"s{i % 12}"}) for i in range(60)]
    )
    result = run(
        "split", source, "--out", tmp_path / "out", "--by", "scenario", "--test", "0.3", "--valid", "0.2"
    )
    assert result.exit_code == 0
    homes = {
        part: {row["metadata"]["scenario"] for row in rows_of(tmp_path / "out" / f"{part}.jsonl")}
        for part in ("train", "valid", "test")
    }
    assert sum(len(found) for found in homes.values()) == 12
    summary = json.loads((tmp_path / "out" / "split.json").read_text())
    assert sum(summary["rows"].values()) == 60
    assert "by metadata key 'scenario'" in summary["rule"]


def test_split_finds_twins_in_different_groups_and_can_leave_them_out(tmp_path: Path) -> None:
    rows = [chat(i, metadata={"customer": f"c{i}"}) for i in range(40)]
    rows += [chat(i, metadata={"customer": f"d{i}"}) for i in range(40)]
    file = save(tmp_path / "a.jsonl", rows)
    told = run("split", file, "--out", tmp_path / "told", "--by", "customer", "--test", "0.4")
    assert "leaked" in told.stdout
    left = run(
        "split", file, "--out", tmp_path / "left", "--by", "customer", "--test", "0.4", "--remove-leaks"
    )
    assert "leaked rows left out" in left.stdout
    questions = {
        part: {row["messages"][0]["content"] for row in rows_of(tmp_path / "left" / f"{part}.jsonl")}
        for part in ("train", "test")
    }
    assert questions["test"]
    assert not questions["train"] & questions["test"]


def test_an_unreadable_row_is_written_down_by_split(tmp_path: Path) -> None:
    file = save(tmp_path / "a.jsonl", [*(chat(i) for i in range(20)), "{broken"])
    result = run("split", file, "--out", tmp_path / "out")
    assert "1 rows could not be read" in result.stdout
    assert [r["line"] for r in rows_of(tmp_path / "out" / "rejects.jsonl")] == [21]


def kept_chat(number: int, content: object, **metadata: str) -> StoredCompletion:
    message = {"role": "assistant", "content": f"answer {number}", "refusal": None}
    completion = {"id": f"chatcmpl-{number}", "choices": [{"index": 0, "message": message}]}
    asked = [{"role": "user", "content": content}]
    return StoredCompletion(f"chatcmpl-{number}", "shop", number, asked, completion, {}, metadata)


def test_stored_chats_become_a_training_file(tmp_path: Path) -> None:
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    with Store.open(tmp_path / "home") as store, writing(store.engine).begin() as connection:
        for kept in (kept_chat(1, "退货", good="yes"), kept_chat(2, image, good="yes"), kept_chat(3, "Hi")):
            store.stored.insert(connection, kept)
    out = tmp_path / "next.jsonl"
    arguments = ["stored", "--out", str(out), "--model", "shop", "--metadata", "good=yes"]
    result = CliRunner().invoke(app, arguments, obj=tmp_path / "home")
    assert result.exit_code == 0, result.output
    assert "1 dialogues" in result.output
    assert "left out chatcmpl-2" in result.output
    (row,) = rows_of(out)
    assert [turn["content"] for turn in row["messages"]] == ["退货", "answer 1"]
    assert row["metadata"] == {"good": "yes", "id": "chatcmpl-1"}
    wrong = CliRunner().invoke(
        app, ["stored", "--out", str(out), "--metadata", "good"], obj=tmp_path / "home"
    )
    assert isinstance(wrong.exception, ConfigError)


def test_stored_chats_are_taken_from_the_project_that_is_named(tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "next.jsonl"
    with Store.open(home) as store:
        team = store.of(store.projects.ensure("team"))
        with writing(store.engine).begin() as connection:
            store.stored.insert(connection, kept_chat(1, "mine"))
            team.stored.insert(connection, kept_chat(2, "theirs"))
    for project, asked in (([], "mine"), (["--project", "team"], "theirs")):
        result = CliRunner().invoke(app, ["stored", "--out", str(out), *project], obj=home)
        assert result.exit_code == 0, result.output
        assert [row["messages"][0]["content"] for row in rows_of(out)] == [asked]
    wrong = CliRunner().invoke(app, ["stored", "--out", str(out), "--project", "taem"], obj=home)
    assert "did you mean 'team'" in str(wrong.exception)
