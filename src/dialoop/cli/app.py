"""The command tree. Nothing that computes is imported before a command runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dialoop import __version__
from dialoop.cli import data, keys, models, prompts, safety, trials
from dialoop.cli.chat import chat
from dialoop.cli.curves import curve
from dialoop.cli.evaluate import evaluate
from dialoop.cli.explain import explain
from dialoop.cli.gate import gate
from dialoop.cli.judge import judge
from dialoop.cli.matrix import matrix
from dialoop.cli.pretrain import pretrain
from dialoop.cli.quickstart import quickstart
from dialoop.cli.search import search
from dialoop.cli.serve import serve
from dialoop.cli.tune import tune

DEFAULT_HOME = "~/.local/share/dialoop"

app = typer.Typer(
    name="dialoop",
    help="Your dialogues in, a better chat model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(quickstart)
app.add_typer(data.app, name="data")
app.command()(pretrain)
app.command()(tune)
app.command()(search)
app.command()(curve)
app.command()(explain)
app.command("eval")(evaluate)
app.command()(matrix)
app.command()(gate)
app.command()(judge)
app.command()(chat)
app.command()(serve)
app.add_typer(models.app, name="models")
app.add_typer(prompts.app, name="prompts")
app.add_typer(keys.app, name="keys")
app.add_typer(safety.app, name="safety")
app.add_typer(trials.app, name="trials")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dialoop {__version__}")
        raise typer.Exit


@app.callback()
def start(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="Where the store lies.", show_default=DEFAULT_HOME)
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that hold for every command."""
    context.obj = home or Path(os.environ.get("DIALOOP_HOME") or DEFAULT_HOME).expanduser()
    # Models come from the store and from local directories; no hub is ever asked.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")
