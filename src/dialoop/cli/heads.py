"""`dialoop tune` for recipes of models with a head, on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dialoop.cli.recipes import command_line

if TYPE_CHECKING:
    from rich.console import Console

    from dialoop.config.heads import AnyHeadRecipe
    from dialoop.jobs.heads import Finished


def run_head_watched(recipe: AnyHeadRecipe, home: Path, folder: Path, console: Console) -> Finished:
    """Run the job with its progress on `console`."""
    from dialoop.cli.watching import TerminalWatch
    from dialoop.jobs.heads import STEPS, run_head

    watch = TerminalWatch(console, STEPS)
    try:
        return run_head(recipe, home, folder, command_line(), watch)
    finally:
        watch.close()


def follow_head(recipe: AnyHeadRecipe, home: Path, folder: Path, rank: int) -> None:
    """Compute a share of what the first process trains; it alone judges, writes and reports."""
    from dialoop.jobs.heads import read_rows
    from dialoop.store.registry import Store
    from dialoop.train.heads import teach

    with Store.open(home) as store:
        base = store.models.resolve(recipe.base)
    dataset = read_rows(recipe, folder / f"scratch-{rank}")
    teach(recipe, base, dataset.train, dataset.valid, folder)


def show_head(console: Console, finished: Finished) -> None:
    """The table, and where everything lies."""
    from rich import box
    from rich.table import Table

    from dialoop.evals.head_report import table

    taught = finished.taught
    if finished.report is None or finished.version is None:
        console.print(f"Interrupted after update {taught.result.step}; the same command goes on:")
        console.print(f"  {command_line()}", soft_wrap=True)
        raise typer.Exit(130)
    share = 100 * taught.trained / taught.weights
    console.print(
        f"\nTrained {taught.trained:,} of {taught.weights:,} weights ({share:.1f} %) on {taught.rows} rows, "
        f"{taught.cut} of them cut; {len(taught.labels)} classes.",
        highlight=False,
    )
    header, rows = table(finished.report)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(header):
        shown.add_column(name, justify="left" if i < 2 else "right")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    console.print(f"\nReport: {finished.folder / 'report.md'}", soft_wrap=True)
    console.print(f"Registered: [bold]{finished.version.ref}[/]")


def rows_read(dataset: Any) -> str:
    """What was read and how it was split, in Markdown."""
    counts = f"{len(dataset.train)} train, {len(dataset.valid)} validation, {len(dataset.test)} test"
    leaked = dataset.leaked
    return (
        f"{dataset.report.to_text()}\n\nSplit {dataset.split_rule}: {counts}. Leak check: "
        f"{len(leaked.exact)} exact and {len(leaked.near)} near-duplicates of training rows among "
        f"{leaked.rows} test rows."
    )
