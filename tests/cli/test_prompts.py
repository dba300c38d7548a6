"""`dialoop prompts`, at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dialoop.cli.app import app
from dialoop.errors import ConfigError, DialoopError, RequestError, StoreError
from tests.tiny import long_dialogues, tiny_model


def run(home: Path, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["--home", str(home), "prompts", *words])
    if isinstance(done.exception, DialoopError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def test_a_prompt_goes_out_as_a_file_is_changed_and_comes_in_again(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(tmp_path, "export", "classify", "--to", str(folder))
    path = folder / "classify.toml"
    path.write_text(path.read_text("utf-8").replace("nothing else", "no more"), "utf-8")
    path.with_suffix(".evidence.json").write_text('{"gain": 2}')
    assert run(tmp_path, "add", str(path), "--parent", "classify@0") == "classify@1: added\n"
    assert run(tmp_path, "add", str(path)) == "classify@1: says the same already\n"
    found = run(tmp_path, "diff", "classify@0", "classify@1", code=1)
    assert "-You sort" in found
    assert "+You sort messages into classes. Answer with the name of one class and no more." in found
    assert "say the same" in run(tmp_path, "diff", "classify@0", "classify")
    assert "classify means classify@1" in run(tmp_path, "promote", "classify@1")
    shown = run(tmp_path, "show", "classify")
    assert "classify@0" in shown
    assert '"gain": 2' in shown
    rows = {each["ref"]: each for each in json.loads(run(tmp_path, "list", "--json"))}
    assert (rows["classify@1"]["meant"], rows["classify@0"]["meant"]) == (True, False)
    run(tmp_path, "export", "classify@1", "--to", str(tmp_path / "again"))
    assert (tmp_path / "again/classify.toml").read_bytes() == path.read_bytes()
    assert json.loads((tmp_path / "again/classify.evidence.json").read_text()) == {"gain": 2}


def test_a_prompt_is_rendered_in_the_language_of_the_question(tmp_path: Path) -> None:
    shown = run(tmp_path, "render", "classify", "--user", "我的卡丢了", "--set", "labels=卡\n账")
    assert "类别：卡、账" in shown
    assert "消息：我的卡丢了" in shown
    (tmp_path / "p.txt").write_text("The passage.", "utf-8")
    words = ["--user", "Where is it?", "--set", f"passage=@{tmp_path}/p.txt"]
    messages = json.loads(run(tmp_path, "render", "question", *words, "--json"))
    assert messages[1]["content"].startswith("Passage:\nThe passage.\n\nQuestion: Where is it?")
    dialogue = tmp_path / "d.json"
    dialogue.write_text(json.dumps([{"role": "user", "content": "Hi"}]))
    assert "User: Hi" in run(tmp_path, "render", "dialogue", "--messages", str(dialogue))


def test_what_a_model_reads_is_shown_as_it_reads_it(tmp_path: Path) -> None:
    model = tiny_model()
    shown = run(tmp_path, "render", "translate", "--user", "hello", "--model", str(model))
    assert "hello" in shown
    assert "assistant" in shown


@pytest.mark.parametrize(
    ("words", "kind", "match"),
    [
        (("show", "clasify"), StoreError, "did you mean 'classify'"),
        (("render", "translate", "--user", "x", "--set", "into"), ConfigError, "NAME=VALUE"),
        (("render", "translate", "--user", "x", "--set", "into=fr"), RequestError, "known: en, zh"),
        (("render", "question", "--user", "x"), RequestError, "passage is missing"),
        (("render", "translate"), RequestError, "none came"),
        (("add", "nowhere.toml"), ConfigError, "No such file"),
        (("render", "dialogue", "--messages", "nowhere.json"), ConfigError, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_mend(
    tmp_path: Path, words: tuple[str, ...], kind: type[DialoopError], match: str
) -> None:
    with pytest.raises(kind, match=match):
        run(tmp_path, *words)


def test_prompts_are_measured_and_a_better_one_is_searched_for(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    written = [
        {"text": f"number {i} {i * i % 7} {label}", "label": label} for i in range(12) for label in "abc"
    ]
    rows.write_text("\n".join(map(json.dumps, written)))
    words = [str(tiny_model()), "classify", str(rows)]
    shown = run(tmp_path, "eval", *words, "--max-cases", "6", "--select", "bm25", "--shots", "2")
    told = ("6 cases, 30 examples", "3 labels", "as it is", "2 by bm25", "accuracy", "ECE", "chance: 33.3")
    for each in told:
        assert each in shown
    search = [*words, "--budget", "60", "--trial-cases", "6", "--test-cases", "6", "--with", "rounds=1",
              "--with", "shots=[2]", "--with", "mutations=1", "--with", "example_sets=1"]  # fmt: skip
    first = run(tmp_path, "optimise", *search, "--out", str(tmp_path / "out"))
    assert "round 1" in first
    listed = {each["ref"]: each for each in json.loads(run(tmp_path, "list", "--json"))}
    if "classify@1" in listed:
        made = listed["classify@1"]
        assert (made["parent"], made["evidence"]["test_cases"]) == ("classify@0", 6)
        assert "dialoop prompts" in made["evidence"]["command"] or made["evidence"]["command"]
        assert (tmp_path / "out/classify.evidence.json").is_file()
    else:
        assert "classify@0 stays" in first
    again = run(tmp_path, "optimise", *search)
    assert again.splitlines()[1] == first.splitlines()[1]


def test_dialogues_beyond_the_context_are_searched_on_and_their_cuts_told(tmp_path: Path) -> None:
    rows = tmp_path / "long.jsonl"
    rows.write_text("\n".join(map(json.dumps, long_dialogues(16))))
    shown = run(
        tmp_path, "optimise", str(tiny_model()), "dialogue", str(rows), "--budget", "20", "--max-tokens", "4",
        "--trial-cases", "4", "--test-cases", "4", "--with", "rounds=1", "--with", "shots=[]",
    )  # fmt: skip
    assert "round 1" in shown
    assert "times a question lost its oldest turns" in shown
