"""`dialoop tune`: a recipe in, a measured and registered model out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dialoop.cli.recipes import RecipeName, RunFolder, Set, command_line, find_recipe
from dialoop.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from dialoop.config import TuneRecipe
    from dialoop.evals.report import SideBySide
    from dialoop.jobs.tuning import Finished


def tune(
    context: typer.Context,
    recipe: RecipeName,
    set_: Set = None,
    run: RunFolder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell tokens, updates, memory, time, and show samples.")
    ] = False,
    samples: Annotated[int, typer.Option(min=0, help="Rows that --dry-run shows.")] = 2,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Find the learning rate by a range test first.")
    ] = False,
    find_batch: Annotated[
        bool, typer.Option("--find-batch", help="Find the fastest train.batch_tokens that fits first.")
    ] = False,
) -> None:
    """Fine-tune a model on the recipe's rows, compare before with after, register the new version.

    Recipes are of kind tune (dialogues), classify (classes of texts), pair (answers that fit) or tag (words).

    Ctrl-C leaves a run that the same command resumes.
    """
    from rich.console import Console

    from dialoop.cli.heads import follow_head, run_head_watched, show_head
    from dialoop.config import TuneRecipe, load_any
    from dialoop.config.kinds import TUNED

    loaded: Any = load_any(find_recipe(recipe), TUNED, set_ or ())
    folder = run or context.obj / "runs" / loaded.name
    console = Console()
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    looks = dry_run or find_lr or find_batch
    if looks and not isinstance(loaded, TuneRecipe):
        raise ConfigError(
            f"{loaded.name} is of kind {loaded.kind}, and --dry-run, --find-lr and --find-batch go with kind "
            f"tune alone: leave them out"
        )
    if looks and several:
        raise ConfigError("--dry-run, --find-lr and --find-batch take one process: run them without torchrun")
    if dry_run:
        from dialoop.cli.outlook import show_outlook
        from dialoop.jobs.dry_run import dry_run as look_ahead

        show_outlook(console, look_ahead(loaded, context.obj, samples=samples))
        return
    from dialoop.train.world import joined

    with joined() as here:
        if not here.leads:
            follow = _follow if isinstance(loaded, TuneRecipe) else follow_head
            follow(loaded, context.obj, folder, here.rank)
        elif isinstance(loaded, TuneRecipe):
            finished = run_watched(loaded, context.obj, folder, console, rate=find_lr, batch=find_batch)
            show_result(console, finished)
        else:
            show_head(console, run_head_watched(loaded, context.obj, folder, console))


def _follow(recipe: TuneRecipe, home: Path, folder: Path, rank: int) -> None:
    """Compute a share of what the first process trains; it alone judges, writes and reports."""
    from dialoop.jobs.given import given
    from dialoop.store.registry import Store
    from dialoop.train.tune import tune as train

    with Store.open(home) as store:
        known = given(store, recipe, folder / f"scratch-{rank}")
    train(known.recipe, known.base, known.learnt.train, known.learnt.valid, folder, teacher=known.teacher)


def run_watched(
    recipe: TuneRecipe, home: Path, folder: Path, console: Console, *, rate: bool = False, batch: bool = False
) -> Finished:
    """Run a tuning job with its progress on `console`. rate, batch: are found first."""
    from dialoop.cli.watching import TerminalWatch
    from dialoop.jobs.tuning import STEPS, Find, run_tuning

    watch = TerminalWatch(console, STEPS)
    find = Find(rate, batch, lambda note: console.print(f"Found: {note}.", highlight=False))
    try:
        return run_tuning(recipe, home, folder, command_line(), watch, find)
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
