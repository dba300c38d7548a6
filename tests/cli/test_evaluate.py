"""`dialoop eval` and `dialoop gate` as processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_app import dialoop
from tests.tiny import tiny_model

POLICY = '[sets]\ntest = ["file:{}"]\n[[must_not_fall]]\nmetric = "ROUGE-L"\nby = 1.0\n'
TURNS = {
    "english": ("where is parcel {}?", "parcel {} comes soon"),
    "chinese": ("包裹{}在哪？", "包裹{}就到"),
}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.format(dialogues(tmp_path, "chinese")), encoding="utf-8")
    return path


def dialogues(folder: Path, language: str) -> Path:
    """A file of four dialogues."""
    path = folder / f"{language}.jsonl"
    user, assistant = TURNS[language]
    rows = [
        {"messages": [{"role": "user", "content": user.format(i)},
                      {"role": "assistant", "content": assistant.format(i)}]}
        for i in range(4)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def compared(tmp_path: Path, *more: str) -> Path:
    """The report of a model compared with itself."""
    model, english = str(tiny_model()), f"file:{dialogues(tmp_path, 'english')}"
    done = dialoop(
        "--home", str(tmp_path / "home"), "eval", "--compare", model, model, english, "--max-cases", "3",
        "--max-tokens", "4", "--out", str(tmp_path / "out"), *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Take whichever costs less." in " ".join(done.stdout.split())
    return tmp_path / "out" / "report.json"


def test_a_report_opens_or_shuts_the_gate(tmp_path: Path, policy: Path) -> None:
    report = compared(tmp_path, "--no-speed", "--retain", f"chinese=file:{tmp_path / 'chinese.jsonl'}")
    opened = dialoop("gate", str(policy), "--report", str(report))
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout.startswith("The gate is open")
    policy.write_text('[[must_gain]]\nset = "chinese"\nmetric = "BLEU"\n', encoding="utf-8")
    shut = dialoop("gate", str(policy), "--report", str(report), "--json")
    assert shut.returncode == 1
    found = json.loads(shut.stdout)
    assert found["passed"] is False
    assert "chinese, Chinese: BLEU is not better by more than 0.0" in found["checks"][0]["reason"]


def test_the_gate_asks_the_models_itself(tmp_path: Path, policy: Path) -> None:
    policy.write_text(
        policy.read_text(encoding="utf-8") + "[cost]\ntimes_slower = 1000.0\n", encoding="utf-8"
    )
    model = str(tiny_model())
    done = dialoop("--home", str(tmp_path / "home"), "gate", str(policy), "--compare", model, model)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "pass  slowdown is" in done.stdout


@pytest.mark.parametrize(("arguments", "words"), [
    (("gate", "POLICY"), "give --report report.json, or --compare"),
    (("eval", "dialoop-base"), "no test dialogues came"),
    (("eval", "--compare", "a", "b", "sample:en", "--retain", "old"), "expected NAME=SOURCE"),
])  # fmt: skip
def test_what_cannot_be_asked_is_one_line(
    tmp_path: Path, policy: Path, arguments: tuple[str, ...], words: str
) -> None:
    given = [str(policy) if each == "POLICY" else each for each in arguments]
    done = dialoop("--home", str(tmp_path / "home"), *given)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
