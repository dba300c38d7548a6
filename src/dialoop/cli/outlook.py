"""A dry run in the terminal: what a run will take, and rows with what is learnt of them in colour."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from dialoop.jobs.dry_run import Outlook
    from dialoop.train.estimate import Estimate, Piece

LEARNT, PARTLY, READ = "black on green", "black on yellow", "dim"


def show_outlook(console: Console, outlook: Outlook) -> None:
    """The table, the samples, and how to read them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    for name, value in _lines(outlook):
        table.add_row(name, value)
    console.print(table)
    if outlook.samples:
        console.print()
        console.print(
            Text.assemble(("learnt", LEARNT), " ", ("learnt by another weight", PARTLY), " ", ("read", READ))
        )
    for number, row in enumerate(outlook.samples, 1):
        console.print(f"\n[bold]Row {number}[/]")
        console.print(coloured(row), soft_wrap=True)


def coloured(row: list[Piece]) -> Text:
    """A row as the model reads it, by what its tokens are worth as targets."""
    styles = {0.0: READ, 1.0: LEARNT}
    return Text.assemble(*((piece.text, styles.get(piece.weight, PARTLY)) for piece in row))


def _lines(outlook: Outlook) -> list[tuple[str, str]]:
    told, dataset = outlook.estimate, outlook.dataset
    rows = told.rows
    parts = {"train": dataset.train, "validation": dataset.valid, "test": dataset.test}
    return [
        ("Conversations", ", ".join(f"{len(part)} {name}" for name, part in parts.items())),
        ("Rows", f"{len(rows.rows)}, {told.epoch_rows} an epoch; {rows.shortened} lose their oldest turns, "
                 f"{len(rows.dropped)} do not fit and are left out"),
        ("Tokens", f"{told.tokens:,} read in all, {told.supervised:,} learnt "
                   f"({told.supervised / told.tokens:.0%})"),
        ("Updates", f"{told.steps}, with {told.validations} validations"),
        ("Weights", f"{told.trained:,} trained of {told.weights:,} ({told.trained / told.weights:.2%})"),
        ("Memory", f"{told.memory / 1e9:.2f} GB at most"),
        ("Time", f"{_time(told)} of training at {told.tokens_per_second:,.0f} tokens/s, "
                 f"from {told.updates} real updates"),
    ]  # fmt: skip


def _time(told: Estimate) -> str:
    if told.seconds < 120:
        return f"{told.seconds:.0f} s"
    return str(timedelta(seconds=round(told.seconds)))
