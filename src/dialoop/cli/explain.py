"""`dialoop explain`: the fields of a recipe, in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer


def explain(
    path: Annotated[
        str, typer.Argument(help="A table or field, as in `method` or `train.epochs`; all without.")
    ] = "",
    pretrain: Annotated[bool, typer.Option(help="Of recipes for pre-training, rather than tuning.")] = False,
    kind: Annotated[str, typer.Option(help="Of recipes of this kind: tune, classify, pair or tag.")] = "tune",
) -> None:
    """Say what the fields of a recipe mean, what they take and what they are unless told."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from dialoop.config.explaining import explain as explained
    from dialoop.config.kinds import KINDS
    from dialoop.errors import ConfigError, echo, nearest

    if kind not in KINDS:
        raise ConfigError(f"--kind {echo(kind)} is no kind of recipe{nearest(kind, KINDS)}")
    console = Console()
    for _, about, fields in explained(KINDS["pretrain" if pretrain else kind], path):
        if about:
            console.print(f"\n{escape(about)}", highlight=False)
        table = Table("field", "takes", "default", "meaning", box=None, header_style="bold")
        for field in fields:
            table.add_row(*(escape(text) for text in (field.path, field.takes, field.default, field.meaning)))
        console.print(table)
