"""`dialoop tune`: a recipe in, a measured and registered model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dialoop.cli.recipes import RecipeName, RunFolder, Set, command_line, find_recipe

if TYPE_CHECKING:
    from rich.console import Console

    from dialoop.config import TuneRecipe
    from dialoop.evals.report import SideBySide
    from dialoop.jobs.tuning import Finished


def tune(context: typer.Context, recipe: RecipeName, set_: Set = None, run: RunFolder = None) -> None:
    """Fine-tune a model on the recipe's rows, compare before with after, register the new version.

    Recipes are of kind tune (dialogues), classify (classes of texts), pair (answers that fit) or tag (words).

    Ctrl-C leaves a run that the same command resumes.
    """
    from rich.console import Console

    from dialoop.cli.heads import run_head_watched, show_head
    from dialoop.config import TuneRecipe, load_any
    from dialoop.config.kinds import TUNED

    loaded: Any = load_any(find_recipe(recipe), TUNED, set_ or ())
    folder = run or context.obj / "runs" / loaded.name
    console = Console()
    if not isinstance(loaded, TuneRecipe):
        show_head(console, run_head_watched(loaded, context.obj, folder, console))
        return
    show_result(console, run_watched(loaded, context.obj, folder, console))


def run_watched(recipe: TuneRecipe, home: Path, folder: Path, console: Console) -> Finished:
    """Run a tuning job with its progress on `console`."""
    from dialoop.cli.watching import TerminalWatch
    from dialoop.jobs.tuning import STEPS, run_tuning

    watch = TerminalWatch(console, STEPS)
    try:
        return run_tuning(recipe, home, folder, command_line(), watch)
    finally:
        watch.close()


def show_result(console: Console, finished: Finished) -> None:
    """The table, three answers side by side, and where everything lies."""
    from dialoop.evals.written import table

    if finished.report is None or finished.version is None:
        console.print(f"Interrupted after update {finished.tuned.result.step}; the same command goes on:")
        console.print(f"  {command_line()}", soft_wrap=True)
        raise typer.Exit(130)
    _print_rows(console, finished)
    table(finished.report, console)
    if finished.near_free is not None:
        console.print("\nOn the test rows without a near-duplicate in the training rows:")
        table(finished.near_free, console)
    for side in (finished.report.gains + finished.report.losses)[:3]:
        _print_side(console, side)
    console.print(f"\nReport: {finished.folder / 'report.html'}", soft_wrap=True)
    console.print(f"Registered: [bold]{finished.version.ref}[/]")


def _print_rows(console: Console, finished: Finished) -> None:
    tuned, rows = finished.tuned, finished.tuned.rows
    share = 100 * tuned.trained / tuned.weights
    console.print(
        f"\nTrained {tuned.trained:,} of {tuned.weights:,} weights ({share:.1f} %) on {len(rows.rows)} rows "
        f"with {rows.supervised:,} supervised tokens; {rows.shortened} rows lost their oldest turns, "
        f"{len(rows.dropped)} did not fit.",
        highlight=False,
    )


def _print_side(console: Console, side: SideBySide) -> None:
    from rich.markup import escape

    case = side.case
    lines = {"user": case.history.messages[-1].content, "before": side.before, "after": side.after}
    console.print()
    for label, text in {**lines, "reference": case.reference}.items():
        console.print(f"  [dim]{label:>9}[/]  {escape(text.strip())}", highlight=False)
