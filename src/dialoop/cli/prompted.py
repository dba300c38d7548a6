"""`dialoop prompts eval` and `dialoop prompts optimise`: prompts before a model, on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dialoop.cli.projects import DEFAULT_PROJECT, Project, open_project
from dialoop.cli.recipes import command_line
from dialoop.cli.values import SetValue, values_of
from dialoop.errors import ConfigError, echo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from dialoop.config.optimising import OptimiseSettings
    from dialoop.config.prompts import PromptSettings
    from dialoop.evals.task import Outcome
    from dialoop.jobs.optimise import Optimised
    from dialoop.jobs.prompt_data import PromptData
    from dialoop.jobs.prompted import Asking, Prompted
    from dialoop.store.registry import Store
    from dialoop.types import Engine, ModelRef

Model = Annotated[str, typer.Argument(help="A registered model, dialoop-base, or a directory.")]
PromptRef = Annotated[str, typer.Argument(metavar="PROMPT", help="NAME or NAME@VERSION.")]
Sources = Annotated[
    list[str],
    typer.Argument(help="Files of dialogues, or of rows with text and label; sample:en, sample:zh."),
]
Examples = Annotated[
    list[str] | None,
    typer.Option(help="Where examples come from; unless given, rows of the sources that are not asked."),
]
TaskName = Annotated[
    str | None,
    typer.Option(help="reply, translation, classification, tags, json, refusal; by the rows unless given."),
]
DropLeaks = Annotated[bool, typer.Option(help="Leave out examples that repeat a test case, not refuse.")]
Embedder = Annotated[
    str | None, typer.Option(help="A model whose vectors compare examples; the model itself unless given.")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer.")]
Seed = Annotated[int, typer.Option(help="Of cases, examples and resamples.")]


def evaluate(
    context: typer.Context,
    model: Model,
    prompt: PromptRef,
    sources: Sources,
    select: Annotated[
        list[str] | None,
        typer.Option(help="random, bm25, embeddings, mmr, balanced; may be repeated, each is a row."),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Examples before a question.")] = 4,
    order: Annotated[str, typer.Option(help="nearest_last, nearest_first or given.")] = "nearest_last",
    example_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of all examples; what is left of the context.")
    ] = None,
    examples: Examples = None,
    task: TaskName = None,
    values: SetValue = None,
    calibrate: Annotated[
        bool, typer.Option(help="Free P(label | prompt) from what the prompt prefers anyway.")
    ] = True,
    drop_leaks: DropLeaks = False,
    embedder: Embedder = None,
    max_cases: Annotated[int, typer.Option(min=2, help="Cases that are asked.")] = 100,
    max_tokens: MaxTokens = 96,
    seed: Seed = 0,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """A prompt as it is, and with examples chosen in several ways, on the same cases with paired intervals.

    Classes are told by P(label | prompt), calibrated by contexts without content; texts are written.
    """
    from rich.console import Console

    from dialoop.chat.prompt import Prompt
    from dialoop.jobs.prompted import Asking, with_few_shot

    console = Console()
    with open_project(context.obj, project) as store:
        version = store.prompts.get(prompt)
        ref, helper = _models(store, model, version.settings, embedder)
    data = _data(context.obj, sources, examples, task, max_cases, seed, drop_leaks)
    start = Prompt(version.settings)
    given = _with_labels(start, data, values_of(values or []))
    rows: dict[str, Asking] = {"as it is": Asking(start, given, None, data.labels, calibrate)}
    for each in select or []:
        told: dict[str, Any] = {
            "select": each, "count": shots, "order": order, "max_tokens": example_tokens, "seed": seed,
        }  # fmt: skip
        rows[f"{shots} by {each}"] = Asking(
            with_few_shot(start, **told), given, data.pool, data.labels, calibrate
        )
    with _asked(context.obj, console, ref, helper, max_tokens) as running:
        outcomes = {name: running.outcomes(asking, data.cases) for name, asking in rows.items()}
        if running.left_out:
            console.print(f"{running.left_out} examples did not fit and gave way to others", highlight=False)
        _tell_shortened(console, running)
    _print_rows(console, data, outcomes, seed)


def optimise(
    context: typer.Context,
    model: Model,
    prompt: PromptRef,
    sources: Sources,
    examples: Examples = None,
    task: TaskName = None,
    values: SetValue = None,
    language: Annotated[
        str | None, typer.Option(help="Of the wording that is changed; that of the cases unless given.")
    ] = None,
    instructions: Annotated[
        Path | None, typer.Option(help="A file with an instruction a line, to be tried as they are.")
    ] = None,
    proposer: Annotated[
        str | None,
        typer.Option(
            help="A model that proposes instructions: a local one, or UPSTREAM/MODEL of dialoop.toml."
        ),
    ] = None,
    budget: Annotated[int, typer.Option(min=10, help="Questions put to candidates, all together.")] = 2000,
    trial_cases: Annotated[int, typer.Option(min=4, help="Cases to choose by.")] = 100,
    test_cases: Annotated[int, typer.Option(min=4, help="Other cases, for the comparison at the end.")] = 200,
    change: Annotated[
        list[str] | None,
        typer.Option("--with", help="Any other setting, as in --with shots=[4,8] --with rounds=3."),
    ] = None,
    drop_leaks: DropLeaks = False,
    embedder: Embedder = None,
    max_tokens: MaxTokens = 96,
    out: Annotated[Path | None, typer.Option(help="Also write the template and its evidence here.")] = None,
    seed: Seed = 0,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Search for a better prompt, and add it as a version with its evidence; the name means it once promoted.

    After Ctrl-C the same command goes on.
    """
    from rich.console import Console

    from dialoop.chat.prompt import Prompt
    from dialoop.jobs.optimise import Optimiser

    console = Console()
    settings = _settings(instructions, change or [], budget=budget, trial_cases=trial_cases,
                         test_cases=test_cases, seed=seed)  # fmt: skip
    with open_project(context.obj, project) as store:
        version = store.prompts.get(prompt)
        ref, helper = _models(store, model, version.settings, embedder)
    data = _data(context.obj, sources, examples, task, trial_cases + test_cases, seed, drop_leaks)
    start = Prompt(version.settings)
    given = _with_labels(start, data, values_of(values or []))
    spoken = start.language_for(language or data.cases[0].language)
    proposals = _proposals(context.obj, proposer, settings, start, spoken, data) if proposer else ()
    with _asked(context.obj, console, ref, helper, max_tokens) as running:
        found = Optimiser(
            running, version.settings, data, settings, language=spoken, values=given, proposed=proposals,
            say=lambda line: console.print(line, highlight=False, soft_wrap=True),
        ).run()  # fmt: skip
        _tell_shortened(console, running)
    evidence = {**found.evidence, "prompt": version.ref, "command": command_line()}
    with open_project(context.obj, project) as store:
        made = store.prompts.add(found.best.settings.toml(), parent=version.ref, evidence=evidence)
    _tell(console, made.ref, version.ref, found)
    if out is not None:
        from dialoop.cli.prompts import write_prompt

        for path in write_prompt(made, out):
            console.print(f"{path}: {made.ref}", highlight=False, soft_wrap=True)


def _tell_shortened(console: Console, running: Prompted) -> None:
    if running.shortened:
        console.print(
            f"{running.shortened} times a question lost its oldest turns, to fit the context", highlight=False
        )


def _tell(console: Console, made: str, before: str, found: Optimised) -> None:
    if made == before:
        console.print(f"{before} stays: no candidate was better", highlight=False)
        return
    console.print(f"{made}: {found.best.origin}; {found.changes[0].words()}", highlight=False, soft_wrap=True)
    mend = f"dialoop prompts promote {made}" if found.better else "not promoted: it is not surely better"
    console.print(mend, highlight=False)


def _settings(instructions: Path | None, changes: list[str], **given: Any) -> OptimiseSettings:
    from dialoop.config import apply_override, validate
    from dialoop.config.optimising import OptimiseSettings

    table: dict[str, Any] = dict(given)
    if instructions is not None:
        try:
            lines = instructions.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{instructions}: cannot be read ({error}): give a text file") from error
        table["instructions"] = [line.strip() for line in lines if line.strip()]
    for each in changes:
        apply_override(table, each)
    return validate(OptimiseSettings, table, "prompts optimise")


def _models(
    store: Store, model: str, prompt: PromptSettings, embedder: str | None
) -> tuple[ModelRef, ModelRef | None]:
    """The one that answers, a soft prompt's own where the prompt names one; and the one that embeds."""
    ref = store.models.resolve(prompt.soft or model)
    return ref, None if embedder is None else store.models.resolve(embedder)


def _data(
    home: Path, sources: list[str], examples: list[str] | None, task: str | None, cases: int, seed: int,
    drop_leaks: bool,
) -> PromptData:  # fmt: skip
    from dialoop.jobs.prompt_data import prompt_data, task_of

    found = prompt_data(
        sources, examples or [], task or task_of(sources), home / "scratch", max_cases=cases, seed=seed,
        drop_leaks=drop_leaks,
    )  # fmt: skip
    words = f"{len(found.cases)} cases, {len(found.pool)} examples to choose from"
    if found.labels:
        words += f", {len(found.labels)} labels"
    if found.leaked.places:
        words += f"; {len(found.leaked.places)} examples left out: {found.leaked.words}"
    if found.rejects:
        words += f"; {len(found.rejects)} rows could not be read, the first: {found.rejects[0].reason}"
    typer.echo(words)
    return found


def _with_labels(prompt: Any, data: PromptData, values: Mapping[str, Any]) -> dict[str, Any]:
    """The labels too, where the prompt asks for them and they are few."""
    from dialoop.jobs.wording import MOST_LISTED

    given = dict(values)
    if data.labels and "labels" in prompt.settings.variables and "labels" not in given:
        if len(data.labels) <= MOST_LISTED:
            given["labels"] = list(data.labels)
        else:
            typer.echo(
                f"{len(data.labels)} labels are too many to be listed in the prompt: --set labels=... does"
            )
    return given


def _asked(
    home: Path, console: Console, ref: ModelRef, embedder: ModelRef | None, max_tokens: int
) -> Prompted:
    from dialoop.cli.watching import TerminalWatch
    from dialoop.jobs.prompted import Prompted

    watch = TerminalWatch(console, 1)

    def done(what: str, number: int, total: int) -> None:
        watch.done(what, number, total)
        if number == total:
            watch.close()

    return Prompted(ref, max_tokens=max_tokens, on_done=done, kept=home / "answers", embedder=embedder)


def _proposals(
    home: Path, proposer: str, settings: OptimiseSettings, prompt: Any, language: str, data: PromptData
) -> list[str]:
    from hashlib import sha256

    from dialoop.jobs.proposals import proposed

    engine, name = _proposing(home, proposer)
    system = prompt.settings.wording[language].system
    about = "\n".join([proposer, language, system, str(settings.proposals), str(settings.seed),
                       *(e.answer + e.messages[0].content for e in data.pool[:20])])  # fmt: skip
    kept = home / "prompts" / f"proposals-{sha256(about.encode()).hexdigest()[:16]}.json"
    found = proposed(engine, name, language, system, data.pool, settings.proposals, kept, settings.seed)
    for each in found:
        typer.echo(f"proposed: {each}")
    return found


def _proposing(home: Path, proposer: str) -> tuple[Engine, str]:
    """An upstream of dialoop.toml, or a local model."""
    from dialoop.cli.site import read_site
    from dialoop.store.registry import Store

    upstream, _, name = proposer.partition("/")
    site = read_site(home)
    if name and upstream in site.upstreams:
        from dialoop.backends.remote import RemoteEngine

        return RemoteEngine(upstream, site.upstreams[upstream]), name
    from dialoop.engine.loaded import open_models
    from dialoop.engine.local import LocalEngine

    with Store.open(home) as store:
        ref = store.models.resolve(proposer)
    return LocalEngine(open_models([ref])), ref.name


def _print_rows(
    console: Console, data: PromptData, outcomes: Mapping[str, Sequence[Outcome]], seed: int
) -> None:
    """A row a way, a column a metric; the intervals are of the change against the first row."""
    from rich.table import Table

    from dialoop.evals.compare import compare
    from dialoop.evals.report import stats_of

    references = [case.reference for case in data.cases]
    languages = sorted({case.language for case in data.cases})
    known = data.task.metrics(languages[0] if len(languages) == 1 else "all", references)
    metrics = [each for each in known if all(o.has(each.reads) for found in outcomes.values() for o in found)]
    table = Table("prompt", *(metric.name for metric in metrics))
    groups = [case.group for case in data.cases]
    first = next(iter(outcomes.values()))
    for name, found in outcomes.items():
        cells = []
        for metric in metrics:
            change = compare(
                metric, stats_of(metric, first), stats_of(metric, found), groups=groups, seed=seed
            )
            interval = "" if found is first else f" ({change.signed(change.delta)} {change.interval})"
            cells.append(f"{change.number(change.after)}{interval}")
        table.add_row(name, *cells)
    console.print(table)
    if data.labels:
        console.print(f"chance: {100 / len(data.labels):.1f} (one of {echo(len(data.labels))} labels)")
