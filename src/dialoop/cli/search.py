"""`dialoop search`: many trials of one recipe, and the best of them as a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dialoop.cli.recipes import RecipeName, RunFolder, Set, command_line, find_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from dialoop.config import TuneRecipe
    from dialoop.jobs.search import Searched
    from dialoop.train.search import Tried


def search(
    context: typer.Context,
    recipe: RecipeName,
    set_: Set = None,
    run: RunFolder = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that make trials side by side.")] = 1,
    shootout: Annotated[
        bool,
        typer.Option(
            help="Compare full, LoRA, bottleneck, prompt tuning and BitFit at equal budget instead."
        ),
    ] = False,
) -> None:
    """Vary the fields that a recipe names, stop poor ones early, write the best. The same command goes on."""
    from rich.console import Console

    from dialoop.config import TuneRecipe, load_recipe
    from dialoop.jobs.search import run_search
    from dialoop.jobs.shootout import lineup
    from dialoop.jobs.shootout import shootout as compared

    console = Console()
    loaded = load_recipe(find_recipe(recipe), TuneRecipe, set_ or ())
    chosen = compared(loaded) if shootout else _with_space(loaded)
    folder: Path = run or context.obj / "runs" / f"{loaded.name}-{'shootout' if shootout else 'search'}"
    found = run_search(
        chosen, context.obj, folder, workers=workers, lineup=lineup() if shootout else (), alone=shootout,
        on_trial=_line(console),
    )  # fmt: skip
    _show(console, found, chosen, shootout)


def _with_space(recipe: TuneRecipe) -> TuneRecipe:
    from dialoop.errors import ConfigError

    if recipe.search is None or not recipe.search.space:
        raise ConfigError(
            f"{recipe.name} varies nothing: name fields in [search.space], such as "
            f'"optim.learning_rate" = {{ kind = "float", low = 1e-4, high = 1e-2, log = true }}, '
            f"or give --shootout"
        )
    return recipe


def _line(console: Console) -> Callable[[Tried], None]:
    def line(tried: Tried) -> None:
        loss = "" if tried.loss is None else f"validation loss {tried.loss:.4f}  "
        values = "  ".join(f"{path} {_short(value)}" for path, value in tried.values.items())
        why = f"  ({tried.error})" if tried.error else ""
        console.print(
            f"trial {tried.number:>3}  {tried.outcome:<9}  {loss}{tried.seconds:.0f} s  {values}{why}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip

    return line


def _short(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _show(console: Console, found: Searched, recipe: TuneRecipe, shootout: bool) -> None:
    from dialoop.jobs.search_report import write_search

    written = write_search(found, recipe, sides=shootout)
    if found.best is not None and found.recipe is not None:
        console.print(f"\nBest: trial {found.best.number}, validation loss {found.best.loss:.4f}")
        console.print(f"Train it: dialoop tune {found.recipe}", soft_wrap=True, highlight=False)
    console.print(f"Report: {written.html}", soft_wrap=True)
    if found.interrupted:
        console.print(f"Interrupted; the same command goes on:\n  {command_line()}", soft_wrap=True)
        raise typer.Exit(130)
