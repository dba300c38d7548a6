"""`dialoop matrix`: prompts and models side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dialoop.cli.recipes import command_line
from dialoop.cli.values import SetValue, values_of

if TYPE_CHECKING:
    from dialoop.jobs.wording import Wording
    from dialoop.store.registry import Store

PLAIN = "none"


def matrix(
    context: typer.Context,
    sources: Annotated[
        list[str], typer.Argument(help="Files of dialogues or rows, or sample:en, sample:zh.")
    ],
    model: Annotated[list[str], typer.Option(help="A registered model or a directory; again for more.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="A prompt of the store, NAME or NAME@VERSION, a TOML file of one, or `none`, the question "
            "as it is; again for more.",
            show_default=PLAIN,
        ),
    ] = None,
    task: Annotated[
        str, typer.Option(help="As of `dialoop eval`: reply, classification, selection ...")
    ] = "reply",
    values: SetValue = None,
    out: Annotated[Path | None, typer.Option(help="Folder for matrix.html and matrix.json.")] = None,
    speed: Annotated[bool, typer.Option(help="Time some answers given alone.")] = True,
    max_cases: Annotated[int, typer.Option(min=1, help="Turns that are answered.")] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 96,
    seed: Annotated[int, typer.Option(help="Of the choice of cases and of the bootstrap.")] = 0,
) -> None:
    """Every prompt with every model on the same cases: scores with intervals, who is best, what it costs.

    What a model has answered once is kept in the home and not asked again.
    """
    from rich.console import Console

    from dialoop.cli.watching import TerminalWatch
    from dialoop.config import EvalSettings
    from dialoop.evals.matrix_written import show, write
    from dialoop.jobs.matrix import Crossing, cross
    from dialoop.store.registry import Store

    settings, console = EvalSettings(max_cases=max_cases, max_tokens=max_tokens, seed=seed), Console()
    with Store.open(context.obj) as store:
        given = values_of(values or [])
        prompts = tuple(_wording(store, name, given) for name in prompt or [PLAIN])
    watch = TerminalWatch(console, 1)
    try:
        found = cross(
            Crossing(tuple(model), prompts, tuple(sources), settings, task, speed), context.obj, watch.done
        )
    finally:
        watch.close()
    show(found, console)
    if out is not None:
        console.print(f"Matrix: {write(found, out, command_line()).html}", soft_wrap=True)


def _wording(store: Store, name: str, values: Mapping[str, str]) -> Wording:
    """`none`, a file's, or one of the store's."""
    from dialoop.config.prompts import read_prompt
    from dialoop.jobs.wording import PLAIN as AS_IT_IS
    from dialoop.jobs.wording import wording

    if name == PLAIN:
        return AS_IT_IS
    if name.endswith(".toml"):
        settings, _ = read_prompt(Path(name))
        name = settings.name
    else:
        version = store.prompts.get(name)
        name, settings = version.ref, version.settings
    return wording(name, settings, {key: text for key, text in values.items() if key in settings.variables})
