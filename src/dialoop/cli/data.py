"""`dialoop data`: look at dialogues, clean them, split them, take them from the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dialoop.cli.projects import DEFAULT_PROJECT, Project, open_project
from dialoop.errors import ConfigError, echo

if TYPE_CHECKING:
    from dialoop.data.clean import Progress
    from dialoop.data.cleaning import Cleaned, Input
    from dialoop.data.parting import Parted
    from dialoop.store.stored import StoredCompletion
    from dialoop.types import Conversation

app = typer.Typer(help="Check, clean, split and export dialogues.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(help="Files of dialogues, gzipped or not.", metavar="FILE...")]
Format = Annotated[
    str | None,
    typer.Option(
        help="openai, sharegpt, alpaca, pairs, preference, table, qa or text; detected where not given."
    ),
]
Encoding = Annotated[
    str | None, typer.Option(help="utf-8, utf-16, gb18030 or another; detected where not given.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="For tables: our field and your column, as in user=Question."),
]
Out = Annotated[Path, typer.Option(help="Folder for the result.")]
Lang = Annotated[str | None, typer.Option(help="Language of the report: en or zh.")]
Threshold = Annotated[float, typer.Option(help="Similarity from which two rows are near-duplicates, 0 to 1.")]


@app.command("check")
def check(
    files: Files,
    format: Format = None,
    column: Columns = None,
    encoding: Encoding = None,
    lang: Lang = None,
) -> None:
    """Say what files are: rows, languages, turns, rejects, duplicates, personal data. Writes nothing."""
    from dialoop.config import CleanSettings
    from dialoop.data.cleaning import inspect_files

    settings = CleanSettings(steps=_all_steps())
    with _progress() as progress:
        found = inspect_files(_input(files, format, column, encoding), settings, on_progress=progress)
    _print_findings(found, lang)


@app.command("clean")
def clean(
    files: Files,
    out: Out,
    format: Format = None,
    column: Columns = None,
    encoding: Encoding = None,
    steps: Annotated[
        str | None, typer.Option(help="Steps to run, with commas; all but pii by default.")
    ] = None,
    pii: Annotated[
        bool, typer.Option("--pii", help="Mask e-mail, phone, IP, card and identity numbers.")
    ] = False,
    pii_key: Annotated[
        Path | None, typer.Option(help="Key file (made where missing) for an encrypted mapping back.")
    ] = None,
    keep_language: Annotated[list[str] | None, typer.Option(help="Keep only en, zh or other.")] = None,
    drop_flag: Annotated[list[str] | None, typer.Option(help="Remove rows with this quality flag.")] = None,
    max_turn_chars: Annotated[int, typer.Option(help="A longer turn rejects its row.")] = 8000,
    near_threshold: Threshold = 0.85,
    max_reject_share: Annotated[
        float, typer.Option(help="More rejects than this end with exit code 1.")
    ] = 0.05,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the report, write nothing.")] = False,
    lang: Lang = None,
) -> None:
    """Clean files into OUT/clean.jsonl, with the rejects, every change and the report beside it."""
    from dialoop.config import CleanSettings, validate
    from dialoop.data.clean import check_rejects
    from dialoop.data.cleaning import clean_files, inspect_files

    table: dict[str, Any] = {
        "steps": _steps(steps, with_pii=pii or pii_key is not None),
        "languages": tuple(keep_language or ()),
        "drop_flags": tuple(drop_flag or ()),
        "max_turn_chars": max_turn_chars,
        "near_threshold": near_threshold,
        "max_reject_share": max_reject_share,
    }
    settings = validate(CleanSettings, table, "dialoop data clean")
    source = _input(files, format, column, encoding)
    with _progress() as progress:
        if dry_run:
            found = inspect_files(source, settings, on_progress=progress)
        else:
            found = clean_files(source, settings, out, pii_key=pii_key, on_progress=progress)
    _print_findings(found, lang)
    if not dry_run:
        typer.echo(f"{out / 'clean.jsonl'}: {found.report.kept}", err=True)
    check_rejects(found.report, settings.max_reject_share)


@app.command("split")
def split(
    files: Files,
    out: Out,
    format: Format = None,
    column: Columns = None,
    encoding: Encoding = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Metadata keys that name the group; the first that all rows have."),
    ] = None,
    valid: Annotated[float, typer.Option(help="Share of validation rows, 0 to 1.")] = 0.05,
    test: Annotated[float, typer.Option(help="Share of test rows, 0 to 1.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Changes which groups fall where.")] = 0,
    near_threshold: Threshold = 0.85,
    leaks: Annotated[bool, typer.Option(help="Look for near-duplicates between the splits.")] = True,
    remove_leaks: Annotated[
        bool, typer.Option("--remove-leaks", help="Leave leaked valid and test rows out.")
    ] = False,
) -> None:
    """Split files by group into OUT/train.jsonl, valid.jsonl and test.jsonl; near-twins stay together."""
    from dialoop.config import SplitSettings, validate
    from dialoop.data.parting import split_files

    table: dict[str, Any] = {"valid": valid, "test": test, "seed": seed}
    settings = validate(
        SplitSettings, {**table, **({"group_by": tuple(by)} if by else {})}, "dialoop data split"
    )
    with _progress():
        parted = split_files(
            _input(files, format, column, encoding), settings, out,
            check_leaks=leaks, remove_leaks=remove_leaks, threshold=near_threshold,
        )  # fmt: skip
    _print_parted(parted)


@app.command("stored")
def stored(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="JSONL file to write, gzipped where it ends in .gz.")],
    model: Annotated[str | None, typer.Option(help="Only what this model answered.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="Only those with this metadata, KEY=VALUE.")
    ] = None,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Write the chats that were answered with `store: true` as dialogues to train on, the oldest first."""
    from dialoop.data.writer import write_openai

    wanted = dict(_pair("--metadata", text) for text in metadata or ())
    skipped: list[str] = []
    with open_project(context.obj, project) as store:
        rows = store.stored.all(model=model, metadata=wanted)
        written = write_openai(out, _conversations(rows, skipped.append))
    typer.echo(f"{out}: {written} dialogues")
    for reason in skipped:
        typer.echo(f"left out {reason}", err=True)


def _conversations(rows: Iterable[StoredCompletion], skip: Callable[[str], None]) -> Iterator[Conversation]:
    from dialoop.errors import DataError

    for kept in rows:
        try:
            yield kept.conversation
        except DataError as error:
            skip(f"{kept.id}: {error}")


def _pair(option: str, text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"{option} {echo(text)}: expected KEY=VALUE")
    return key, value


def _print_parted(parted: Parted) -> None:
    total = sum(parted.rows.values())
    for part, rows in parted.rows.items():
        leaked = f", {parted.leaked[part]} leaked" if parted.leaked.get(part) else ""
        typer.echo(f"{part}: {rows} rows ({rows / total:.1%}){leaked}" if total else f"{part}: 0 rows")
    typer.echo(f"{parted.groups} groups, {parted.rule}")
    if parted.removed:
        typer.echo(f"{parted.removed} leaked rows left out")
    if parted.rejected:
        typer.echo(f"{parted.rejected} rows could not be read: see rejects.jsonl")


def _input(
    files: Sequence[Path], format: str | None, columns: Sequence[str] | None, encoding: str | None
) -> Input:
    from typing import get_args

    from dialoop.config import DataFormat
    from dialoop.data.cleaning import Input
    from dialoop.errors import nearest

    if format is not None and format not in get_args(DataFormat):
        raise ConfigError(f"--format {echo(format)} is unknown{nearest(format, get_args(DataFormat))}")
    mapped = dict(map(_column, columns or ()))
    return Input(tuple(files), format, mapped, encoding)  # type: ignore[arg-type]


def _column(text: str) -> tuple[str, str]:
    ours, separator, theirs = text.partition("=")
    if not separator or not ours or not theirs:
        raise ConfigError(f"--column {echo(text)}: expected FIELD=COLUMN, such as --column user=Question")
    return ours, theirs


def _all_steps() -> tuple[Any, ...]:
    from typing import get_args

    from dialoop.config import CleanStep

    return get_args(CleanStep)


def _steps(steps: str | None, *, with_pii: bool) -> tuple[str, ...]:
    from dialoop.config import CleanSettings
    from dialoop.errors import nearest

    chosen = (
        tuple(step.strip() for step in steps.split(",") if step.strip()) if steps else CleanSettings().steps
    )
    for step in chosen:
        if step not in _all_steps():
            raise ConfigError(f"--steps {echo(step)} is unknown{nearest(step, _all_steps())}")
    return (*chosen, "pii") if with_pii and "pii" not in chosen else chosen


def _print_findings(found: Cleaned, lang: str | None) -> None:
    """What the files are, the turns, the rejects by reason, then the table of the steps."""
    language = lang or (
        "zh" if os.environ.get("LC_ALL", os.environ.get("LANG", "")).startswith("zh") else "en"
    )
    for path, detected in found.detected:
        typer.echo(f"{path}: {detected}")
    if found.turns:
        rows = sum(count for _, count in found.turns)
        mean = sum(turns * count for turns, count in found.turns) / rows
        label = "轮次" if language == "zh" else "turns"
        typer.echo(f"{label}: {found.turns[0][0]} - {found.turns[-1][0]} (x̄ {mean:.1f})")
    for reason, count in found.rejects[:10]:
        typer.echo(f"  {'拒收' if language == 'zh' else 'rejected'} {count}: {reason}")
    typer.echo(found.report.to_text(language))


@contextmanager
def _progress() -> Iterator[Progress]:
    """A spinner with the rows so far on standard error; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda rows: bar.update(task, completed=rows)
