"""Tables and JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import typer


def print_json(value: Any) -> None:
    """Indented, with characters as they are."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Aligned columns; nothing where there are no rows."""
    from rich.console import Console
    from rich.table import Table

    if rows:
        table = Table(*header, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        # Piped output has no width of its own, and a name must not be cut.
        width = None if sys.stdout.isatty() else 240
        Console(markup=False, highlight=False, width=width).print(table)


def day(micros: int) -> str:
    """UTC, to the minute."""
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
