"""`dialoop judge`: can this judge be believed?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def judge(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A registered model, a directory, or what --upstream serves.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            help="What people said: preferences (chosen and rejected), such as sample:preference; with "
            "--rubric, dialogues whose metadata holds a grade of the last answer."
        ),
    ],
    rubric: Annotated[
        str | None, typer.Option(help="Grade single answers by this, in the place of preferring one of two.")
    ] = None,
    lowest: Annotated[int, typer.Option(help="The worst grade.")] = 1,
    highest: Annotated[int, typer.Option(help="The best grade.")] = 5,
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A server of OpenAI's API; its key is read from DIALOOP_UPSTREAM_JUDGE_KEY."
        ),
    ] = None,
    max_cases: Annotated[int, typer.Option(min=2, help="Ratings that are compared.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the choice of cases and of the interval.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for agreement.json, with every rating.")] = None,
) -> None:
    """How far a judge agrees with people: Cohen's kappa with its interval, and what that means.

    Two answers are shown in both orders; a preference that the order changes counts as a tie.
    """
    from dialoop.backends.upstream import upstream_from
    from dialoop.evals.judge import CONSISTENT, Rubric
    from dialoop.evals.messages import say
    from dialoop.jobs.agreeing import Agreeing, agree, write

    by = None if rubric is None else Rubric(rubric, lowest, highest)
    at = None if upstream is None else upstream_from(f"judge={upstream}")[1]
    found = agree(Agreeing(model, tuple(sources), by, at, max_cases, seed), context.obj)
    typer.echo(found.found.words())
    if found.consistency is not None:
        share = 100 * (1 - found.consistency.value)
        weak = found.consistency.value < CONSISTENT
        typer.echo(say("judge_swayed" if weak else "judge_steady", "en", share=f"{share:.0f}"))
    if found.rejected:
        typer.echo(f"{len(found.rejected)} rows were left out, the first: {found.rejected[0]}")
    if out is not None:
        typer.echo(f"Ratings: {write(found, out)}")
