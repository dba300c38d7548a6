"""The terminal chat."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dialoop.backends.echo import EchoEngine
from dialoop.chat.wire import conversation_from_openai
from dialoop.cli.chat import chat
from dialoop.cli.session import Session
from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.types import ChatRequest, Delta, Engine, ModelRef, Sampling
from tests.tiny import tiny_model


class Told:
    """A session over an engine, with what it said and noted."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.said, self.notes = "", list[str]()
        self.session = Session(
            engine or EchoEngine(), "echo", Sampling(), say=self._say, note=self.notes.append
        )

    def _say(self, text: str) -> None:
        self.said += text

    def tell(self, *lines: str) -> Told:
        self.session.run(iter(lines))
        return self

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn.role, turn.content) for turn in self.session.conversation.messages]


def test_lines_are_answered_in_turn_and_remembered() -> None:
    told = Told().tell("Hello there\n", "\n", "你好，吗\n")
    assert told.said == "Hello there\n你好，吗\n"
    assert told.turns == [
        ("user", "Hello there"), ("assistant", "Hello there"),
        ("user", "你好，吗"), ("assistant", "你好，吗"),
    ]  # fmt: skip


def test_exit_ends_the_chat() -> None:
    assert Told().tell("one", "/exit", "two").said == "one\n"


def test_undo_forgets_the_last_question_and_answer() -> None:
    told = Told().tell("one", "two", "/undo")
    assert told.turns == [("user", "one"), ("assistant", "one")]
    assert Told().tell("/undo").notes == ["nothing to undo"]


def test_reset_keeps_the_system_turn() -> None:
    assert Told().tell("/system Be kind.", "one", "/reset").turns == [("system", "Be kind.")]
    assert Told().tell("/system Be kind.", "/system").turns == []


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("/set temperature 0.2", "temperature", 0.2),
        ("/set top_p 0.5", "top_p", 0.5),
        ("/set max_tokens 5", "max_tokens", 5),
        ("/set seed -3", "seed", -3),
        ("/set top_k 40", "top_k", 40),
        ("/set repetition_penalty 1.2", "repetition_penalty", 1.2),
        ("/set stop 再见", "stop", ("再见",)),
    ],
)
def test_set_changes_how_answers_are_drawn_and_none_takes_it_back(
    line: str, field: str, value: object
) -> None:
    assert getattr(Told().tell(line).session.sampling, field) == value
    assert Told().tell(line, f"/set {field} none").session.sampling == Sampling()


@pytest.mark.parametrize(
    "line", ["/set temperature 3", "/set top_p x", "/set max_tokens 1.5", "/set max_tokens 0"]
)
def test_a_setting_out_of_bounds_is_refused_with_its_range(line: str) -> None:
    told = Told().tell(line)
    assert told.session.sampling == Sampling()
    assert "expected" in told.notes[0]


def test_a_misspelt_command_or_setting_names_the_nearest() -> None:
    assert "'reset'" in Told().tell("/rest").notes[0]
    assert "'temperature'" in Told().tell("/set temprature 1").notes[0]


def test_help_lists_every_command() -> None:
    (text,) = Told().tell("/help").notes
    for name in ("system", "set", "undo", "reset", "save", "models", "help", "exit"):
        assert f"/{name}" in text


def test_save_appends_lines_that_can_be_trained_on(tmp_path: Path) -> None:
    file = tmp_path / "dialogues.jsonl"
    told = Told().tell("/system 友好。", "你好", f"/save {file}", "and?", f"/save {file}")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [len(row["messages"]) for row in rows] == [3, 5]
    assert conversation_from_openai(rows[1]) == told.session.conversation


def test_a_file_that_cannot_be_written_does_not_end_the_chat(tmp_path: Path) -> None:
    told = Told().tell("one", f"/save {tmp_path}", "two")
    assert "cannot be written" in told.notes[0]
    assert told.said == "one\ntwo\n"


def test_a_prompt_too_long_is_told_and_forgotten() -> None:
    told = Told(EchoEngine(context=20)).tell("a " * 30, "short")
    assert "20" in told.notes[0]
    assert told.turns == [("user", "short"), ("assistant", "short")]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert Told(EchoEngine({"go": "\x1b[2Jred\x9b1m\tok"})).tell("go").said == "[2Jred1m\tok\n"


class InterruptedEngine(EchoEngine):
    """Presses Ctrl-C after the first word of every answer."""

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:  # type: ignore[override]
        async for delta in super().chat(request):
            yield delta
            if request.conversation.messages[-1].content.startswith("long"):
                signal.raise_signal(signal.SIGINT)


def test_ctrl_c_stops_the_answer_and_not_the_chat() -> None:
    engine = InterruptedEngine()
    told = Told(engine).tell("long story of many words", "short")
    assert told.turns == [
        ("user", "long story of many words"), ("assistant", "long"),
        ("user", "short"), ("assistant", "short"),
    ]  # fmt: skip
    assert told.notes == ["\n(stopped)"]
    assert engine.open == 0


def test_a_pipe_is_answered_by_a_real_model(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(chat)

    @app.callback()
    def main(context: typer.Context) -> None:
        context.obj = tmp_path / "home"

    asked = ["chat", str(tiny_model()), "--max-tokens", "6", "--seed", "1"]
    typed = f"你好\n/models\n/save {tmp_path / 'x.jsonl'}\n"
    result = CliRunner().invoke(app, asked, input=typed)
    assert result.exit_code == 0, result.output
    assert tiny_model().name in result.stderr
    (row,) = (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()
    said = json.loads(row)["messages"][-1]["content"]
    assert _shown(said) == _shown(result.stdout)


def _shown(text: str) -> str:
    return "".join(char for char in text if char.isprintable())


def test_answers_are_scored_by_how_probable_they_are() -> None:
    engine = LocalEngine({"echo": open_model(ModelRef("echo", tiny_model()))})
    told = Told(engine).tell("/set max_tokens 4", "Where is it?", "/score It ships today. | 明天送达。")
    shares = [float(note.split("%")[0]) for note in told.notes[-2:]]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert "log P -" in told.notes[-1]
    assert told.notes[-1].endswith("明天送达。")


def test_a_score_without_a_question_or_of_a_scripted_engine_says_why() -> None:
    assert "ask something first" in Told().tell("/score Hi").notes[0]
    assert "does not tell probabilities" in Told().tell("Hi", "/score Hi").notes[0]
