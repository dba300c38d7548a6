"""`dialoop curve`: the course of a run, still going or ended, as a page and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dialoop.errors import TrainError, nearest


def curve(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run directory, or the name of one of the home's runs.")],
) -> None:
    """Draw loss, learning rate, gradient norm and speed of a run: curve.html and curve.png."""
    from dialoop.jobs.curves import write_curves

    runs: Path = context.obj / "runs"
    folder = Path(run) if Path(run).is_dir() else runs / run
    if not folder.is_dir():
        known = [path.name for path in runs.iterdir()] if runs.is_dir() else []
        raise TrainError(f"{run}: no run directory{nearest(run, known)}")
    made = write_curves(folder, folder.name)
    if made is None:
        raise TrainError(f"{folder}: holds no metrics.jsonl with an update: give the directory of a run")
    typer.echo(f"{made.html}\n{made.png}")
