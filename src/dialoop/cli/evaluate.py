"""`dialoop eval`: one model on test dialogues, or two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dialoop.cli.recipes import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dialoop.evals.task import Outcome


def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A registered model or a directory.")],
    sources: Annotated[list[str], typer.Argument(help="Files of dialogues, or sample:en, sample:zh.")],
    against: Annotated[
        str | None, typer.Option(help="A second model: the report says how far MODEL is better.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html, .json and .md (with --against).")
    ] = None,
    max_cases: Annotated[int, typer.Option(min=1, help="Turns that are answered.")] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 96,
    seed: Annotated[int, typer.Option(help="Of the choice of cases and of the bootstrap.")] = 0,
) -> None:
    """BLEU, chrF, ROUGE, perplexity and more on test dialogues; with --against, paired 95 % intervals."""
    from rich.console import Console

    from dialoop.cli.watching import TerminalWatch
    from dialoop.config import CleanSettings, DataSettings, EvalSettings, SplitSettings
    from dialoop.data.dataset import load_dataset
    from dialoop.jobs.judging import choose_cases, judge
    from dialoop.store.registry import Store

    console = Console()
    settings = EvalSettings(max_cases=max_cases, max_tokens=max_tokens, seed=seed)
    everything = DataSettings(
        sources=tuple(sources), clean=CleanSettings(steps=("unicode", "roles", "turns", "language")),
        split=SplitSettings(valid=0, test=0),
    )  # fmt: skip
    with Store.open(context.obj) as store:
        refs = [store.models.resolve(name) for name in (model, against) if name]
        chosen = choose_cases(load_dataset(everything, scratch=context.obj / "scratch").train, settings)
    watch = TerminalWatch(console, 1)
    try:
        outcomes = [judge(ref, chosen, settings, watch.done) for ref in refs]
    finally:
        watch.close()
    if against is None:
        _print_metrics(console, outcomes[0])
        return
    _compare(console, outcomes[1], outcomes[0], names=(against, model), out=out, seed=seed)


def _print_metrics(console: Console, outcomes: Sequence[Outcome]) -> None:
    from rich.table import Table

    from dialoop.evals.metrics import suite

    shown = Table("language", "metric", "value", "cases", "signature")
    for language in sorted({outcome.case.language for outcome in outcomes}):
        mine = [outcome for outcome in outcomes if outcome.case.language == language]
        for metric in suite(language):
            if metric.reads == "text":
                kept = [o for o in mine if o.answer is not None]
                value = metric.value([o.answer for o in kept], [o.case.reference for o in kept])
            else:
                kept = [o for o in mine if o.log_likelihood is not None]
                value = metric.value([o.log_likelihood for o in kept], [o.tokens for o in kept])
            shown.add_row(
                language, metric.name, f"{value:.{metric.digits}f}", str(len(kept)), metric.signature
            )
    console.print(shown)


def _compare(
    console: Console,
    before: Sequence[Outcome],
    after: Sequence[Outcome],
    *,
    names: tuple[str, str],
    out: Path | None,
    seed: int,
) -> None:
    from dialoop.evals.report import Identity, build
    from dialoop.evals.written import table, write
    from dialoop.jobs.tuning import hardware

    identity = Identity(
        base=names[0], model=names[1], seeds={"eval": seed}, hardware=hardware(), command=command_line()
    )
    report = build(before, after, identity=identity, seed=seed)
    table(report, console)
    if out is not None:
        console.print(f"Report: {write(report, out).html}", soft_wrap=True)
