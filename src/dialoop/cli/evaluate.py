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

    from dialoop.config import EvalSettings
    from dialoop.evals.suites import Task
    from dialoop.evals.task import Outcome
    from dialoop.jobs.comparing import Comparing


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
        Path | None, typer.Option(help="Folder for report.html, .json, .md and .png, of two models.")
    ] = None,
    task: Annotated[
        str, typer.Option(help="reply, translation, classification, tags, json or refusal.")
    ] = "reply",
    judge: Annotated[
        str | None, typer.Option(help="With --compare: a model that prefers one of two answers, asked twice.")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(help="With --compare: a model whose vectors compare answers in meaning.")
    ] = None,
    speed: Annotated[bool, typer.Option(help="With --compare: time some answers given alone.")] = True,
    max_cases: Annotated[int, typer.Option(min=1, help="Turns that are answered.")] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 96,
    seed: Annotated[int, typer.Option(help="Of the choice of cases and of the bootstrap.")] = 0,
) -> None:
    """BLEU, chrF, ROUGE, perplexity and more on test dialogues; of two models with paired 95 % intervals.

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

    task_named(task)
    settings, console = EvalSettings(max_cases=max_cases, max_tokens=max_tokens, seed=seed), Console()
    if compare is None:
        _judge(console, context.obj, model, sources, settings, task)
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


def _judge(
    console: Console, home: Path, model: str, sources: tuple[str, ...], settings: EvalSettings, task: str
) -> None:
    from dialoop.cli.watching import TerminalWatch
    from dialoop.evals.suites import task_named
    from dialoop.jobs.comparing import dialogues_of
    from dialoop.jobs.judging import Judged, choose_cases
    from dialoop.store.registry import Store

    with Store.open(home) as store:
        ref = store.models.resolve(model)
    chosen = choose_cases(dialogues_of(sources, home / "scratch").train, settings)
    watch = TerminalWatch(console, 1)
    try:
        outcomes = Judged(ref, settings, watch.done, kept=home / "answers").outcomes(chosen)
    finally:
        watch.close()
    _print_metrics(console, outcomes, task_named(task))


def _print_metrics(console: Console, outcomes: Sequence[Outcome], task: Task) -> None:
    from rich.table import Table

    from dialoop.evals.report import stats_of

    shown = Table("language", "metric", "value", "cases", "signature")
    for language in sorted({outcome.case.language for outcome in outcomes}):
        mine = [outcome for outcome in outcomes if outcome.case.language == language]
        for metric in task.metrics(language, [o.case.reference for o in mine]):
            kept = [o for o in mine if (o.answer if metric.reads == "text" else o.log_likelihood) is not None]
            value = metric.aggregate(stats_of(metric, kept).sum(0))
            shown.add_row(
                language, metric.name, f"{value:.{metric.digits}f}", str(len(kept)), metric.signature
            )
    console.print(shown)


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
