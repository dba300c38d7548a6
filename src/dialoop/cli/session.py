"""A dialogue in the terminal: its turns, its commands, its answers as they stream."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import typer

from dialoop.errors import DialoopError, RequestError, UnsupportedError, echo, nearest
from dialoop.types import ChatRequest, Conversation, Delta, Engine, Message, Sampling, Score

HELP = """\
/system TEXT       what the assistant is told first; without TEXT, nothing
/set               show how answers are drawn
/set NAME VALUE    temperature 0..2, top_p 0..1, max_tokens, seed, stop, top_k, min_p, typical_p,
                   presence_penalty, frequency_penalty, repetition_penalty; `none` takes a value back
/score A | B       how probable each of these would be as the next answer, alone and among them
/undo              forget the last question and its answer
/reset             forget the dialogue
/save FILE         append the dialogue to FILE as one line of OpenAI chat JSONL
/models            the models at hand
/help              this list
/exit              leave (also Ctrl-D); Ctrl-C stops an answer"""
# Control characters that a model may emit and a terminal would obey.
_CONTROL = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_ALWAYS_SHOWN = {"temperature", "top_p", "max_tokens", "seed", "stop"}
_BOUNDS: dict[str, tuple[type, float, float]] = {
    "temperature": (float, 0, 2),
    "top_p": (float, 0, 1),
    "max_tokens": (int, 1, 2**31 - 1),
    "seed": (int, -(2**63), 2**63 - 1),
    "top_k": (int, 0, 2**31 - 1),
    "min_p": (float, 0, 1),
    "typical_p": (float, 0.01, 1),
    "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
    "repetition_penalty": (float, 0.01, 100),
}


def typed() -> Iterator[str]:
    """Lines that a person types, with editing and recall where Python has readline."""
    import contextlib
    import importlib

    with contextlib.suppress(ImportError):
        importlib.import_module("readline")
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            typer.echo("\n/exit leaves", err=True)
        except EOFError:
            typer.echo(err=True)
            return


def _print(text: str) -> None:
    typer.echo(text, nl=False)


def _note(text: str) -> None:
    typer.echo(text, err=True)


class Session:
    """A dialogue and the commands on it. say: takes the pieces of answers; note: lines about the rest."""

    def __init__(
        self,
        engine: Engine,
        model: str,
        sampling: Sampling,
        *,
        system: str = "",
        say: Callable[[str], None] = _print,
        note: Callable[[str], None] = _note,
    ) -> None:
        self.model, self.sampling, self.system = model, sampling, system
        self.turns: list[Message] = []
        self.note = note
        self._engine, self._say = engine, say
        self._commands: dict[str, Callable[[str], None]] = {
            "system": self._set_system, "set": self._set, "undo": self._undo, "reset": self._reset,
            "save": self._save, "models": self._models, "help": lambda rest: self.note(HELP),
        }  # fmt: skip

    @property
    def conversation(self) -> Conversation:
        """The dialogue so far, the system turn included."""
        first = (Message("system", self.system),) if self.system else ()
        return Conversation((*first, *self.turns))

    def run(self, lines: Iterator[str]) -> None:
        """Answer line after line up to the end or /exit, then close the engine."""
        with asyncio.Runner() as runner:
            try:
                for line in lines:
                    text = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()
                    if text in ("/exit", "/quit"):
                        break
                    if text:
                        self._take(text, runner)
            finally:
                runner.run(self._engine.aclose())

    def _take(self, text: str, runner: asyncio.Runner) -> None:
        try:
            if text.partition(" ")[0] == "/score":
                runner.run(self._score(text.partition(" ")[2]))
            elif text.startswith("/"):
                self._command(*text[1:].partition(" ")[::2])
            else:
                self._answer(text, runner)
        except DialoopError as error:
            self.note(str(error))

    def _command(self, name: str, rest: str) -> None:
        if name not in self._commands:
            raise RequestError(
                f"no command {echo('/' + name)}{nearest(name, [*self._commands, 'score', 'exit'])}"
            )
        self._commands[name](rest.strip())

    def _answer(self, text: str, runner: asyncio.Runner) -> None:
        """Ask, show and remember; what was said before Ctrl-C is kept."""
        said: list[str] = []
        self.turns.append(Message("user", text))
        try:
            runner.run(self._stream(said))
        except KeyboardInterrupt:
            self.note("\n(stopped)")
        finally:
            if said:
                self._say("\n")
                self.turns.append(Message("assistant", "".join(said)))
            else:
                self.turns.pop()

    async def _stream(self, said: list[str]) -> None:
        request = ChatRequest(self.model, self.conversation, self.sampling)
        deltas = cast(AsyncGenerator[Delta, None], self._engine.chat(request))
        reason = None
        async with aclosing(deltas):
            async for delta in deltas:
                said.append(delta.text)
                self._say(delta.text.translate(_CONTROL))
                reason = delta.finish_reason
        if reason == "length":
            self.note("\n(cut at the longest answer: see /set max_tokens, or /reset a long dialogue)")

    async def _score(self, rest: str) -> None:
        """P(answer | history) of answers that might come after the last question."""
        answers = [part.strip() for part in rest.split("|") if part.strip()]
        asked = [i for i, turn in enumerate(self.turns) if turn.role == "user"]
        if not answers or not asked:
            raise RequestError("nothing scored: ask something first, then /score ANSWER | ANOTHER")
        if not isinstance(self._engine, Score):
            raise UnsupportedError("this engine does not tell probabilities: chat with a local model")
        turns = self.conversation.messages
        history = Conversation(turns[: len(turns) - len(self.turns) + asked[-1] + 1])
        scored = await self._engine.score(self.model, history, answers)
        best = max(each.total for each in scored)
        weights = [math.exp(each.total - best) for each in scored]
        for answer, each, weight in zip(answers, scored, weights, strict=True):
            mean = each.total / len(each.logprobs)
            self.note(
                f"{weight / sum(weights):6.1%}  log P {each.total:.2f}, {mean:.2f} a token over "
                f"{len(each.logprobs)}  {answer.translate(_CONTROL)}"
            )

    def _set_system(self, rest: str) -> None:
        self.system = rest
        self.note("system turn set" if rest else "no system turn")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name:
            self.sampling = replace(self.sampling, **{_known(name): _value(name, value.strip())})
        usual = Sampling()
        drawn = {key: getattr(self.sampling, key) for key in (*_BOUNDS, "stop")}
        changed = {key for key, value in drawn.items() if value != getattr(usual, key)}
        drawn = {key: value for key, value in drawn.items() if key in _ALWAYS_SHOWN | changed}
        self.note("  ".join(f"{key} {'none' if v in (None, ()) else v}" for key, v in drawn.items()))

    def _undo(self, rest: str) -> None:
        if not self.turns:
            self.note("nothing to undo")
            return
        asked = max(i for i, turn in enumerate(self.turns) if turn.role == "user")
        del self.turns[asked:]
        self.note(f"{len(self.turns)} turns left")

    def _reset(self, rest: str) -> None:
        self.turns.clear()
        self.note("dialogue forgotten; the system turn stays" if self.system else "dialogue forgotten")

    def _save(self, rest: str) -> None:
        from dialoop.chat.wire import conversation_to_openai

        if not rest or not self.turns:
            raise RequestError("nothing saved: say something first, then /save FILE.jsonl")
        line = json.dumps(conversation_to_openai(self.conversation), ensure_ascii=False)
        try:
            with Path(rest).expanduser().open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RequestError(f"{rest}: cannot be written ({error.strerror}): choose another file") from None
        self.note(f"{len(self.conversation.messages)} messages appended to {rest}")

    def _models(self, rest: str) -> None:
        for served in self._engine.models():
            self.note(f"{served.name}  {served.context} tokens")


def _known(name: str) -> str:
    if name not in (*_BOUNDS, "stop"):
        raise RequestError(f"no setting {echo(name)}{nearest(name, [*_BOUNDS, 'stop'])}")
    return name


def _value(name: str, text: str) -> Any:
    """What /set gives a field; `none` is its default."""
    if text in ("", "none"):
        return getattr(Sampling(), name)
    if name == "stop":
        return (text,)
    kind, low, high = _BOUNDS[name]
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        wanted = "a whole number" if kind is int else "a number"
        raise RequestError(f"{name} = {echo(text)}: expected {wanted} from {low:g} to {high:g}")
    return value
