"""`dialoop eval`: one model on test dialogues, or two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dialoop.cli.recipes import command_line
from dialoop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dialoop.jobs.comparing import Comparing
    from dialoop.jobs.scoring import Judging


def evaluate(
    context: typer.Context,
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] SOURCES...",
            help="A registered model or a directory, left out with --compare; then files of dialogues, "
            "or sample:en, sample:zh.",
        ),
    ],
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="BEFORE AFTER", help="Two models: the report says how far AFTER is better."),
    ] = None,
    retain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SOURCE", help="With --compare: another set, old or general, not to be forgotten."
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The same as --compare AGAINST MODEL, MODEL being given first.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html, .json, .md and .png of two models, or for scores.json of one; of a "
            "classification also confusion.png."
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="reply, translation, json, refusal: what is written; classification, selection, retrieval: "
            "what is chosen, by P(option | history), a head or vectors; tags: of words."
        ),
    ] = "reply",
    judge: Annotated[
        str | None, typer.Option(help="With --compare: a model that prefers one of two answers, asked twice.")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(help="A model whose vectors compare answers in meaning.")
    ] = None,
    speed: Annotated[bool, typer.Option(help="With --compare: time some answers given alone.")] = True,
    max_cases: Annotated[int, typer.Option(min=1, help="Turns that are answered.")] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 96,
    seed: Annotated[int, typer.Option(help="Of the choice of cases and of the bootstrap.")] = 0,
) -> None:
    """Metrics on test dialogues with 95 % intervals: BLEU, chrF, ROUGE, perplexity; of two models paired.

    What a model has answered once is kept in the home and not asked again.
    """
    if compare is None:
        model, *given = given
        compare = None if against is None else (against, model)
    if not given:
        raise ConfigError("no test dialogues came: name files after the model, or sample:en")
    sources, retained = tuple(given), _sets(retain or ())
    from rich.console import Console

    from dialoop.config import EvalSettings
    from dialoop.evals.suites import task_named
    from dialoop.jobs.comparing import Comparing
    from dialoop.jobs.scoring import Judging

    task_named(task)
    settings, console = EvalSettings(max_cases=max_cases, max_tokens=max_tokens, seed=seed), Console()
    if compare is None:
        if retained or judge:
            raise ConfigError("--retain and --judge go with two models: give --compare BEFORE AFTER")
        _judge(console, context.obj, Judging(model, sources, settings, task, embedder, command_line()), out)
    else:
        sets = {"test": sources, **retained}
        asked = Comparing(*compare, sets, settings, speed, command_line(), task, judge, embedder)
        _compare(console, context.obj, asked, out)


def _sets(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """NAME=SOURCE; several of one name are one set."""
    sets: dict[str, tuple[str, ...]] = {}
    for each in given:
        name, separator, source = each.partition("=")
        if not separator or not name or not source or name == "test":
            raise ConfigError(f"--retain {each}: expected NAME=SOURCE, such as general=file:general.jsonl")
        sets[name] = (*sets.get(name, ()), source)
    return sets


def _judge(console: Console, home: Path, asked: Judging, out: Path | None) -> None:
    from dialoop.cli.scores import show_scores
    from dialoop.cli.watching import TerminalWatch
    from dialoop.evals.scores import write
    from dialoop.jobs.scoring import score_model

    watch = TerminalWatch(console, 1)
    try:
        found = score_model(asked, home, watch.done)
    finally:
        watch.close()
    show_scores(console, found)
    if out is not None:
        console.print(f"Scores: {write(found, out)}", soft_wrap=True)


def _compare(console: Console, home: Path, asked: Comparing, out: Path | None) -> None:
    from dialoop.cli.watching import TerminalWatch
    from dialoop.evals.written import table, write
    from dialoop.jobs.comparing import compare_models

    watch = TerminalWatch(console, 1)
    try:
        report = compare_models(asked, home, watch.done)
    finally:
        watch.close()
    table(report, console)
    if out is not None:
        console.print(f"Report: {write(report, out).html}", soft_wrap=True)
