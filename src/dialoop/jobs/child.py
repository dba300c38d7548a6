"""The process of one fine-tuning job: `python -m dialoop.jobs.child RUN_DIRECTORY`, a pipe as standard input.

It writes its run directory and nothing else. When the pipe ends, whatever became of the runner at its other
end, or at SIGTERM, it finishes its update, saves and leaves; another such process goes on from there.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialoop.errors import DialoopError
from dialoop.jobs.run_directory import BUSY, INTERRUPTED, RunDirectory, as_read

if TYPE_CHECKING:
    from dialoop.train.fit import Rows
    from dialoop.train.heads import Taught
    from dialoop.train.loop import Progress
    from dialoop.train.pairs import PairRows
    from dialoop.train.tune import Tuned
    from dialoop.types import ModelRef

NICENESS = 10
"""Answers come first: training takes the time that they leave."""


def main(folder: Path) -> int:
    """Train; the exit code."""
    run = RunDirectory(folder)
    with run.occupied() as mine:
        if not mine:
            return BUSY
        threading.Thread(target=_leave_with_parent, daemon=True).start()
        os.nice(NICENESS)
        run.mend()
        logging.getLogger("dialoop").addHandler(_Told(run))
        try:
            return _train(run)
        except DialoopError as error:
            run.end({"status": "failed", "message": run.without_path(str(error))})
        except MemoryError:
            run.end(
                {"status": "failed", "message": "memory ran out: train with a smaller train.batch_tokens"}
            )
        except Exception as error:
            traceback.print_exc()
            run.end({"status": "failed", "message": _unforeseen(error)})
    return 1


def _train(run: RunDirectory) -> int:
    from dialoop.config import TuneRecipe
    from dialoop.config.kinds import tuned_recipe
    from dialoop.jobs.training_file import read_training_file

    order = run.ordered
    recipe = tuned_recipe(order["recipe"])
    rows, valid = (
        read_training_file(run.path / file, file, order["method"], recipe.kind) if file else ()
        for file in (order["training_file"], order["validation_file"])
    )
    work = _tune if isinstance(recipe, TuneRecipe) else _teach
    result = work(run, recipe, as_read(order["base"]), rows, valid)
    if result is None:
        return INTERRUPTED
    run.end({"status": "succeeded", **result})
    return 0


def _tune(run: RunDirectory, recipe: Any, base: ModelRef, rows: Any, valid: Any) -> dict[str, Any] | None:
    """How it went; None where it was told to leave."""
    from dialoop.config import AddingMethod
    from dialoop.train.tune import tune

    def on_epoch(progress: Progress, made: Path) -> None:
        run.tell("checkpoint", folder=made.name, **asdict(progress))

    teacher = run.ordered.get("teacher")
    tuned = tune(
        recipe, base, rows, valid, run.path, teacher=as_read(teacher) if teacher else None,
        on_rows=lambda fitted: _tell_rows(run, fitted, recipe.train.max_length),
        on_progress=lambda progress: run.tell("progress", **asdict(progress)),
        on_epoch=on_epoch if isinstance(recipe.method, AddingMethod) else None,
    )  # fmt: skip
    if tuned.artefact is None:
        return None
    return {"adapter": tuned.artefact.adapter is not None, **_quality(tuned)}


def _teach(run: RunDirectory, recipe: Any, base: ModelRef, rows: Any, valid: Any) -> dict[str, Any] | None:
    """The same for a head, whose rows were told with it."""
    from dialoop.train.heads import teach

    def told(progress: Progress) -> None:
        run.tell("progress", **asdict(progress))

    run.tell("message", message=f"Training on {len(rows)} rows", data={"rows": len(rows)})
    taught = teach(recipe, base, rows, valid, run.path, on_progress=told)
    if taught.artefact is None:
        return None
    if taught.cut:
        run.tell(
            "message", level="warn", data={"cut": taught.cut},
            message=f"{taught.cut} rows are longer than {recipe.train.max_length} tokens and were cut: raise "
            f"train.max_length",
        )  # fmt: skip
    return {"adapter": False, "classes": list(taught.labels), **_quality(taught)}


def _quality(made: Tuned | Taught) -> dict[str, Any]:
    result = made.result
    return {
        "tokens": result.tokens, "step": result.step, "best_step": result.best_step,
        "best_loss": result.best_loss, "trained_weights": made.trained, "weights": made.weights,
    }  # fmt: skip


def _tell_rows(run: RunDirectory, rows: Rows | PairRows, limit: int) -> None:
    counts = {"rows": len(rows.rows), "shortened": rows.shortened, "left_out": len(rows.dropped)}
    from dialoop.train.pairs import PairRows

    what = "pairs of answers" if isinstance(rows, PairRows) else "conversations"
    learnt = f"{len(rows.rows)} {what} with {rows.supervised} tokens to learn"
    run.tell("message", message=f"Training on {learnt}", data={**counts, "tokens": rows.supervised})
    if rows.shortened or rows.dropped:
        run.tell(
            "message", level="warn", data=counts,
            message=f"Of the conversations longer than {limit} tokens {rows.shortened} lost their oldest "
            f"turns, and {len(rows.dropped)} do not fit even so and are left out: raise train.max_length",
        )  # fmt: skip


def _unforeseen(error: Exception) -> str:
    if type(error).__name__ == "OutOfMemoryError":
        return "the device's memory ran out: train with a smaller train.batch_tokens"
    name = type(error).__name__
    return f"training ended with an unforeseen {name}: log.txt in the job's run directory says where"


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


class _Told(logging.Handler):
    """Warnings of the training, such as of a damaged checkpoint, become events."""

    def __init__(self, run: RunDirectory) -> None:
        super().__init__(logging.WARNING)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        self._run.tell("message", level="warn", message=self._run.without_path(record.getMessage()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
