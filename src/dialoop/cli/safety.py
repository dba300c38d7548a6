"""`dialoop safety`: what the moderation filter finds, and what it decided."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dialoop.cli.projects import DEFAULT_PROJECT, Project, open_project

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
    as_json: AsJson = False,
) -> None:
    """What the lists find: line, category, action, entry, first and last character. Exit code 1 if any."""
    from dialoop.cli.site import read_site
    from dialoop.safety.policy import Policy

    settings = read_site(context.obj).safety
    policy = Policy.of(settings.model_copy(update={"lists": tuple(lists)}) if lists else settings)
    found = False
    for number, line in enumerate(_texts(text), 1):
        for find in policy.find(line):
            found = True
            row = {"line": number, **asdict(find)}
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


def _texts(given: str) -> list[str]:
    if given == "-":
        return sys.stdin.read().splitlines()
    if len(given) < 1024 and Path(given).is_file():
        return Path(given).read_text(encoding="utf-8").splitlines()
    return given.splitlines()
