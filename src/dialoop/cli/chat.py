"""`dialoop chat`: a dialogue in the terminal, or in a pipe."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def chat(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A registered model or a directory.")] = "dialoop-base",
    system: Annotated[str, typer.Option(help="What the assistant is told first.")] = "",
    temperature: Annotated[
        float, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")
    ] = 0.7,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Draw from this share of probability.")] = 0.95,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answers.")] = None,
) -> None:
    """Talk with a model in the terminal; /help lists the commands. Lines from a pipe are answered too."""
    from dialoop.cli.named import open_models, served_name
    from dialoop.cli.session import Session, typed
    from dialoop.engine.local import LocalEngine
    from dialoop.types import Sampling

    interactive = sys.stdin.isatty()
    engine = LocalEngine(open_models(context.obj, [model]))
    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
    session = Session(engine, served_name(model), sampling, system=system)
    if interactive:
        session.note(f"{session.model}: /help lists the commands, /exit leaves")
    session.run(typed() if interactive else iter(sys.stdin))
