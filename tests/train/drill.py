"""A small tuning run to practise on, and children that are struck down in it.

`python -m tests.train.drill FOLDER` runs it undisturbed and disturbed, and prints what each left as JSON;
`... FOLDER RECIPES`, with changes of the recipe as JSON by name, does so for each, killed once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dialoop.config import ContinueMethod, PreferenceObjective, TuneRecipe
from dialoop.train.loop import Progress
from dialoop.train.tune import Tuned, tune
from dialoop.types import Conversation, Message, ModelRef, Preference
from tests.tiny import make_tiny_model

ANSWERS = {
    "Where is my order?": "It ships today.",
    "I want to return shoes.": "Please tell me the order number.",
    "我的订单在哪里？": "预计明天送达。",
    "我想退货。": "请告诉我订单号，谢谢。",
    "Thank you!": "You are welcome.",
    "谢谢。": "不客气。",
}
DIALOGUES = tuple(
    Conversation((Message("user", question), Message("assistant", answer)))
    for question, answer in ANSWERS.items()
)
WORSE = ("No.", "不行。", "Ask elsewhere, please.", "不知道！", "Go away.", "走开，别来烦我。")
PREFERENCES = tuple(
    Preference(dialogue.history, dialogue.messages[-1], Message("assistant", other))
    for dialogue, other in zip(DIALOGUES, WORSE, strict=True)
)
UPDATES = 12


def recipe(**changes: Any) -> TuneRecipe:
    """A LoRA run of `UPDATES` updates in three epochs; `a__b=c` changes one field."""
    table: dict[str, Any] = {
        "name": "shop",
        "data": {"sources": ["sample:en"]},
        "method": {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1},
        "optim": {"learning_rate": 5e-3},
        "train": {"epochs": 3.0, "batch_tokens": 64, "checkpoint_every": 3, "eval_every": 2, "patience": 0},
    }
    return TuneRecipe.model_validate(changed(table, changes))


def changed(table: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's table with some values of its own: `a__b` is field b of table a."""
    for key, value in changes.items():
        parent, _, field = key.partition("__")
        if field:
            table.setdefault(parent, {})[field] = value
        else:
            table[parent] = value
    return table


def run(base: Path, folder: Path, on_progress: Callable[[Progress], None] = lambda progress: None) -> Tuned:
    return tune(recipe(), ModelRef("tiny", base), DIALOGUES, DIALOGUES[:2], folder, on_progress=on_progress)


def adapter_sum(folder: Path) -> str:
    return hashlib.sha256((folder / "artefact" / "adapter_model.safetensors").read_bytes()).hexdigest()


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a child process: its exit status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except KeyboardInterrupt:
            os._exit(130)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def striking(step: int, *signals: int) -> Callable[[Progress], None]:
    """Send this process `signals` after update `step`."""

    def strike(progress: Progress) -> None:
        if progress.step == step:
            for number in signals:
                os.kill(os.getpid(), number)

    return strike


def dies_writing(base: Path, folder: Path, sync: int) -> Callable[[], object]:
    """A run that is killed at its `sync`-th call of fsync: while it writes a checkpoint."""
    calls, real = iter(range(1, 10_000)), os.fsync

    def fsync(handle: int) -> None:
        if next(calls) == sync:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    def work() -> None:
        os.fsync = fsync
        run(base, folder)

    return work


def interrupted(base: Path, folder: Path) -> None:
    """Ctrl-C after the fifth update: the run must come back by itself and say so."""
    tuned = run(base, folder, striking(5, signal.SIGINT))
    told = {
        "step": tuned.result.step,
        "interrupted": tuned.result.interrupted,
        "wrote": tuned.artefact is not None,
    }
    (folder / "told.json").write_text(json.dumps(told))


def recipes(folder: Path, chosen: dict[str, dict[str, Any]]) -> None:
    """Some updates by each recipe: undisturbed, and killed after the fifth and taken up again."""
    base, teacher = make_tiny_model(folder / "base"), make_tiny_model(folder / "teacher", seed=1)
    found: dict[str, Any] = {}
    adapter = folder / "adapter"
    assert in_child(lambda: run(base, adapter)) == 0
    for name, changes in chosen.items():
        taken = recipe(**changes, train__epochs=1.5, train__checkpoint_every=2)
        rows: Any = PREFERENCES if isinstance(taken.objective, PreferenceObjective) else DIALOGUES
        statuses, sums = [], []
        goes_on = isinstance(taken.method, ContinueMethod)
        ref = ModelRef("tiny", base, adapter / "artefact" if goes_on else None)
        for place, strike in ((folder / name / "whole", 0), (folder / name / "killed", 5)):
            for step in dict.fromkeys((strike, 0)):

                def work(
                    place: Path = place, step: int = step, taken: TuneRecipe = taken, rows: Any = rows,
                    ref: ModelRef = ref,
                ) -> None:  # fmt: skip
                    strike = striking(step, signal.SIGKILL)
                    tune(
                        taken, ref, rows, rows[:2], place, on_progress=strike,
                        teacher=ModelRef("teacher", teacher),
                    )  # fmt: skip

                statuses.append(in_child(work))
            files = sorted((place / "artefact").glob("*.safetensors"))
            sums.append(hashlib.sha256(files[0].read_bytes()).hexdigest() if files else place.name)
        found[name] = [statuses, *sums]
    print(json.dumps(found))


def main(folder: Path) -> None:
    base = make_tiny_model(folder / "base")
    draw = random.Random(7)
    struck = {f"killed after update {n}": n for n in sorted(draw.sample(range(1, UPDATES), 3))}
    found: dict[str, Any] = {}
    found["undisturbed"] = [in_child(lambda: run(base, folder / "whole"))]
    for name, step in struck.items():
        strike = striking(step, signal.SIGKILL)
        found[name] = [in_child(lambda s=strike, n=name: run(base, folder / n, s))]  # type: ignore[misc]
    for sync in (draw.randint(1, 5), draw.randint(6, 20)):  # of the first checkpoint, of the next three
        name = f"killed at sync {sync}"
        found[name] = [in_child(dies_writing(base, folder / name, sync))]
    found["interrupted"] = [in_child(lambda: interrupted(base, folder / "interrupted"))]
    twice = striking(4, signal.SIGINT, signal.SIGINT)
    found["interrupted twice"] = [in_child(lambda: run(base, folder / "interrupted twice", twice))]
    for name, outcome in found.items():
        place = folder / ("whole" if name == "undisturbed" else name)
        if name != "undisturbed":
            outcome.append(in_child(lambda p=place: run(base, p)))  # type: ignore[misc]
        outcome.append(adapter_sum(place))
    found["told"] = json.loads((folder / "interrupted" / "told.json").read_text())
    print(json.dumps(found))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        recipes(Path(sys.argv[1]), json.loads(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
