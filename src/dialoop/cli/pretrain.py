"""`dialoop pretrain`: plain text and conversations in, a base model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dialoop.cli.recipes import RecipeName, RunFolder, Set, command_line, find_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from dialoop.train.loop import Progress


def pretrain(
    context: typer.Context,
    recipe: RecipeName,
    set_: Set = None,
    run: RunFolder = None,
    register: Annotated[bool, typer.Option(help="Register the finished model in the store.")] = True,
) -> None:
    """Train a tokenizer and a decoder, or an encoder. Ctrl-C leaves a run that the same command resumes."""
    from rich.console import Console

    from dialoop.config import PretrainRecipe, load_recipe
    from dialoop.train.pretrain import prepare

    console = Console()
    loaded = load_recipe(find_recipe(recipe), PretrainRecipe, set_ or ())
    folder: Path = run or context.obj / "runs" / loaded.name
    work = prepare(loaded, folder, lambda note: console.print(note, highlight=False))
    result = work.run(_Line(console, work.plan.name))
    if result.interrupted:
        console.print(
            f"Interrupted after update {result.step}. The same command resumes it: {command_line()}"
        )
        raise typer.Exit(130)
    console.print(f"Model: {folder / 'model'}", soft_wrap=True)
    if register:
        console.print(
            f"Registered: {_register(context.obj, loaded.name, folder, loaded.model_dump(mode='json'))}"
        )


def _register(home: Path, name: str, folder: Path, recipe: dict[str, object]) -> str:
    from dialoop.store.registry import Store

    with Store.open(home) as store:
        run = store.runs.start("pretrain", recipe, {})
        made = store.models.register(name, "pretrained", folder / "model", recipe=recipe, run_id=run.id)
        store.runs.finish(run.id, "completed", {})
    return made.ref


class _Line:
    """One line every ten updates: stage, loss, speed, time left."""

    def __init__(self, console: Console, stage_of: Callable[[int], str]) -> None:
        self.console, self.stage_of = console, stage_of

    def __call__(self, progress: Progress) -> None:
        if progress.step % 10 and progress.step != progress.steps:
            return
        self.console.print(
            f"{progress.step:>6}/{progress.steps}  {self.stage_of(progress.step - 1)}  "
            f"loss {progress.loss:.3f}  lr {progress.learning_rate:.2e}  "
            f"{progress.tokens_per_second:,.0f} tokens/s  {progress.seconds_left / 60:.0f} min left",
            highlight=False,
        )
