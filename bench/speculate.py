"""Decoding with drafts beside decoding without, on answers that quote their prompt and on others.

    python bench/speculate.py [--model PATH] [--rounds 5] [--sequences 1 4 16] [--answers 16]

quoted: the prompt holds eight passages, the answer gives two of them word for word between words of its own.
written: the shop's real answers to its sample dialogues.  drawn: whatever the model says at temperature 1.
The first two are forced, so that any model says them; what is forced costs both contestants alike. They
alternate in one process (A B A B); prompts are found read before. Answers that differ are counted: a draw so
near to the edge between two tokens that the rounding of another step's shape decides it.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from dialoop.chat.render import render_prompt
from dialoop.engine.loaded import LoadedModel, open_model
from dialoop.engine.row import Row
from dialoop.engine.running import Running
from dialoop.types import Conversation, Message, ModelRef, Sampling

ASSETS = Path(__file__).parents[1] / "src/dialoop/assets"
STEP_TOKENS = 512
LONGEST = 96
Asked = tuple[list[int], list[int] | None]
"""A prompt, and the answer where it is forced."""


class Script:
    """Forces an answer, through the door of the grammars."""

    hurried = False

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids
        self._said = 0

    @property
    def ended(self) -> bool:
        return self._said == len(self._ids)

    def begin(self) -> None:
        """Nothing to prepare."""

    def apply(self, logits: torch.Tensor) -> None:
        logits[self._ids[self._said]] = torch.inf

    def add(self, token: int) -> None:
        self._said += 1


def dialogues() -> list[tuple[Message, ...]]:
    """The sample dialogues of both languages that end with an answer."""
    files = [ASSETS / f"samples/{name}.jsonl" for name in ("en", "zh")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    turns = [[Message(m["role"], m["content"]) for m in json.loads(line)["messages"]] for line in lines]
    return [tuple(each) for each in turns if each[-1].role == "assistant"]


def quoted(loaded: LoadedModel, count: int) -> list[Asked]:
    dice = random.Random(1)
    passages = [each[-1].content for each in dialogues()]
    asked = []
    for _ in range(count):
        found = dice.sample(passages, 8)
        history = (Message("user", "\n\n".join([*found, "What do the rules say? 规定怎么说？"])),)
        answer = f"This is what I found: {found[2]} It also says: {found[5]} Is there anything else?"
        asked.append((prompt_of(loaded, history), loaded.tokenizer.encode(answer)[:LONGEST]))
    return asked


def written(loaded: LoadedModel, count: int) -> list[Asked]:
    return [
        (prompt_of(loaded, each[:-1]), loaded.tokenizer.encode(each[-1].content)[:LONGEST])
        for each in random.Random(2).sample(dialogues(), count)
    ]


def drawn(loaded: LoadedModel, count: int) -> list[Asked]:
    return [(prompt, None) for prompt, _ in written(loaded, count)]


KINDS: dict[str, Callable[[LoadedModel, int], list[Asked]]] = {
    "quoted": quoted,
    "written": written,
    "drawn": drawn,
}


def prompt_of(loaded: LoadedModel, history: Sequence[Message]) -> list[int]:
    return list(render_prompt(Conversation(tuple(history)), loaded.tokenizer))


def rows_of(loaded: LoadedModel, asked: Sequence[Asked]) -> list[Row]:
    return [
        Row(
            prompt, Sampling(temperature=0 if script else 1, seed=i, ignore_eos=True), 0,
            vocabulary=loaded.tokenizer, limit=len(script or [0] * LONGEST),
            constraint=Script(script) if script else None,
        )
        for i, (prompt, script) in enumerate(asked)
    ]  # fmt: skip


def answer_all(running: Running, rows: Sequence[Row]) -> tuple[float, int]:
    """Seconds, and steps of the model."""
    start, steps = time.perf_counter(), 0
    for row in rows:
        running.add(row)
    while running.rows:
        running.advance()
        steps += 1
    return time.perf_counter() - start, steps


def compare(loaded: LoadedModel, kind: str, sequences: int, answers: int, rounds: int) -> None:
    """A line of the table."""
    asked = KINDS[kind](loaded, max(answers, sequences))
    context = max(len(prompt) for prompt, _ in asked) + LONGEST
    contestants = {
        speculate: Running(
            loaded.model, max_rows=sequences, step_tokens=STEP_TOKENS, context=context,
            cache_tokens=(len(asked) + sequences) * context, speculate=speculate,
        )
        for speculate in (True, False)
    }  # fmt: skip
    speeds: dict[bool, list[float]] = {True: [], False: []}
    steps: dict[bool, int] = {}
    said: dict[bool, list[list[int]]] = {}
    for round_ in range(rounds + 1):
        for speculate, running in contestants.items():
            rows = rows_of(loaded, asked)
            seconds, steps[speculate] = answer_all(running, rows)
            said[speculate] = [row.tokens for row in rows]
            if round_:
                speeds[speculate].append(sum(map(len, said[speculate])) / seconds)
    differ = sum(on != off for on, off in zip(said[True], said[False], strict=True))
    ratio = median(on / off for on, off in zip(speeds[True], speeds[False], strict=True))
    print(
        f"| {kind} | {sequences} | {median(speeds[True]):.0f} | {median(speeds[False]):.0f} | {ratio:.2f} "
        f"| {steps[True] / steps[False]:.2f} | {differ} of {len(asked)} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ASSETS / "dialoop-base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--answers", type=int, default=16)
    given = parser.parse_args()
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| answers | side by side | tokens/s with drafts | without | ratio | steps ratio | differ |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    loaded = open_model(ModelRef(given.model.name, given.model))
    for kind in KINDS:
        for sequences in given.sequences:
            compare(loaded, kind, sequences, given.answers, given.rounds)


if __name__ == "__main__":
    main()
