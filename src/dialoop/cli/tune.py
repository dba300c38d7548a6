"""`dialoop tune`: a recipe in, a measured and registered model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dialoop.cli.recipes import RecipeName, RunFolder, Set, command_line, find_recipe

if TYPE_CHECKING:
    from rich.console import Console

    from dialoop.config import TuneRecipe
    from dialoop.jobs.tuning import Finished


def tune(context: typer.Context, recipe: RecipeName, set_: Set = None, run: RunFolder = None) -> None:
    """Fine-tune a model on dialogues, compare before with after, register the new version.

    Ctrl-C leaves a run that the same command resumes.
    """
    from rich.console import Console

    from dialoop.config import TuneRecipe, load_recipe

    loaded = load_recipe(find_recipe(recipe), TuneRecipe, set_ or ())
    folder = run or context.obj / "runs" / loaded.name
    show_result(Console(), context.obj, run_watched(loaded, context.obj, folder, Console()), loaded)


def run_watched(recipe: TuneRecipe, home: Path, folder: Path, console: Console) -> Finished:
    """Run a tuning job with its progress on `console`."""
    from dialoop.cli.watching import TerminalWatch
    from dialoop.jobs.tuning import STEPS, run_tuning

    watch = TerminalWatch(console, STEPS)
    try:
        return run_tuning(recipe, home, folder, command_line(), watch)
    finally:
        watch.close()


def show_result(console: Console, home: Path, finished: Finished, recipe: TuneRecipe) -> None:
    """The table, three answers side by side, and what to do next."""
    from dialoop.evals.written import table

    if finished.report is None or finished.version is None:
        console.print(f"Interrupted after update {finished.tuned.result.step}. The same command resumes it: {command_line()}")
        raise typer.Exit(130)
    _rows(console, finished)
    table(finished.report, console)
    if finished.near_free is not None:
        console.print("\nOn the test rows without a near-duplicate in the training rows:")
        table(finished.near_free, console)
    for side in (finished.report.gains + finished.report.losses)[:3]:
        _side(console, side)
    console.print(f"\nReport: {finished.folder / 'report.html'}", soft_wrap=True)
    console.print(f"Registered: [bold]{finished.version.ref}[/]")
    if finished.folder.name == finished.version.name:
        _archive(finished)


def _archive(finished: Finished) -> None:
    """A finished run makes room for the next of its name."""
    if finished.version is not None:
        finished.folder.rename(finished.folder.with_name(f"{finished.version.name}@{finished.version.version}"))


def _rows(console: Console, finished: Finished) -> None:
    tuned = finished.tuned
    share = 100 * tuned.trained / tuned.weights
    console.print(
        f"\nTrained {tuned.trained:,} of {tuned.weights:,} weights ({share:.1f} %) on {len(tuned.rows.rows)} rows, "
        f"{tuned.rows.supervised:,} supervised tokens an epoch; {tuned.rows.shortened} rows lost old turns, "
        f"{len(tuned.rows.dropped)} did not fit.",
        highlight=False,
    )


def _side(console: Console, side: object) -> None:
    from rich.markup import escape

    from dialoop.evals.report import SideBySide

    if isinstance(side, SideBySide):
        question = side.case.history.messages[-1].content
        lines = (("user", question), ("before", side.before), ("after", side.after), ("reference", side.case.reference))
        console.print()
        for label, text in lines:
            console.print(f"  [dim]{label:>9}[/]  {escape(text.strip())}", highlight=False)
