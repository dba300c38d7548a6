"""`dialoop safety`: what the moderation filter finds, and what it decided."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dialoop.cli.projects import DEFAULT_PROJECT, Project, open_project

if TYPE_CHECKING:
    from dialoop.safety.policy import Judgement, SafetySettings

app = typer.Typer(help="Try the moderation filter and review what it decided.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead.")]


@app.command("check")
def check(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="A text, the path of a file of texts, a line each, or -.")],
    lists: Annotated[
        list[str] | None,
        typer.Option("--list", help="en, zh or file:PATH; those of HOME/dialoop.toml unless given."),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            help="A model that reads along; that of HOME/dialoop.toml, if it has one, unless given."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What the filter finds: line, category, action, entry or model with its probability, first and last
    character. Exit code 1 if any."""
    import asyncio

    from dialoop.cli.site import read_site
    from dialoop.safety.classifier import ClassifierSettings

    settings = read_site(context.obj).safety
    given: dict[str, object] = {"lists": tuple(lists)} if lists else {}
    if classifier is not None:
        given["classifier"] = ClassifierSettings(model=classifier)
    found, settings = False, settings.model_copy(update=given)
    for number, judged in enumerate(asyncio.run(_judged(context.obj, settings, _texts(text))), 1):
        for find in judged.finds:
            found = True
            row = {"line": number, **asdict(find)}
            del row["read"]
            typer.echo(json.dumps(row, ensure_ascii=False) if as_json else "\t".join(map(str, row.values())))
    raise typer.Exit(1 if found else 0)


@app.command("decisions")
def decisions(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
    action: Annotated[str | None, typer.Option(help="Only block, mask or flag.")] = None,
    category: Annotated[str | None, typer.Option(help="Only one category, such as self-harm/intent.")] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: AsJson = False,
) -> None:
    """What the filter decided, the newest first: time (UTC), action, category, side, place, rule, request."""
    with open_project(context.obj, project) as store:
        rows = store.moderation.list(limit=limit, action=action, category=category)
    for row in rows:
        if as_json:
            typer.echo(json.dumps(asdict(row), ensure_ascii=False))
            continue
        time = datetime.fromtimestamp(row.created / 1e6, UTC).isoformat(sep=" ", timespec="seconds")
        told = (
            time,
            row.action,
            row.category,
            row.side,
            row.place,
            row.rule,
            row.request_id,
            row.content or "",
        )
        typer.echo("\t".join(told).rstrip())


async def _judged(home: Path, settings: SafetySettings, texts: list[str]) -> list[Judgement]:
    """What the filter says of each, its classifier loaded into this process if it has one."""
    from dialoop.cli.named import moderator, open_models
    from dialoop.safety.policy import Policy

    names = moderator(home, settings)
    if not names:
        return await Policy.of(settings).judge(texts)
    from dialoop.engine.local import LocalEngine

    models = open_models(home, names)
    async with aclosing(LocalEngine(models)) as engine:
        return await Policy.of(settings, engine, classifier=next(iter(models))).judge(texts)


def _texts(given: str) -> list[str]:
    if given == "-":
        return sys.stdin.read().splitlines()
    if len(given) < 1024 and Path(given).is_file():
        return Path(given).read_text(encoding="utf-8").splitlines()
    return given.splitlines()
