"""`dialoop keys`: who may use the server, for what, and how much of it."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dialoop.cli.projects import DEFAULT_PROJECT, open_project
from dialoop.cli.tables import day, print_json, print_table
from dialoop.errors import ConfigError, echo

if TYPE_CHECKING:
    from dialoop.store.keys import Period
    from dialoop.store.registry import Store

app = typer.Typer(
    help="Make, list and revoke API keys; with one key, the server asks every request for one.",
    no_args_is_help=True,
)

Project = Annotated[str, typer.Option(help="Whose files, jobs and stored completions the key opens.")]
_BUDGET = re.compile(r"(\d{1,15})/(day|month)")
_DAYS = {"h": 1 / 24, "d": 1, "w": 7}


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is called, in lists and in the log.")],
    project: Project = DEFAULT_PROJECT,
    scopes: Annotated[
        str, typer.Option(help="Parted by commas, of inference, data, jobs, metrics and admin.")
    ] = "inference,data,jobs",
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests to models a minute.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens a minute.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Tokens a UTC day or month, such as 1000000/month.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="After so long (12h, 90d, 8w), or on a UTC day (2027-01-31).")
    ] = None,
) -> None:
    """Make a key and print it; it is shown this once, since only a hash of it is kept."""
    from dialoop.access.scopes import read_scopes
    from dialoop.access.secret import PREFIX, digest_of, new_secret
    from dialoop.store.keys import Allowance

    if not name.strip() or len(name) > 64:
        raise ConfigError(f"the name {echo(name)} has {len(name)} characters: give 1 to 64")
    tokens, period = read_budget(budget)
    allowance = Allowance(rpm, tpm, tokens, period, read_expiry(expires, datetime.now(UTC)))
    held, secret = read_scopes(scopes), new_secret()
    with open_project(context.obj, project, make=True) as store:
        key = store.keys.create(
            name, prefix=secret[:PREFIX], digest=digest_of(secret), scopes=held, allowance=allowance
        )
    typer.echo(f"{key.name}: for {', '.join(key.scopes)}; keep it well, it is not shown again", err=True)
    typer.echo(secret)


@app.command("list")
def list_keys(
    context: typer.Context,
    project: Annotated[str | None, typer.Option(help="Of this project alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """The keys, the revoked ones too, and the tokens that each has used in its budget's period."""
    from dialoop.store.identity import now_micros
    from dialoop.store.registry import Store

    with Store.open(context.obj) as store:
        names = sorted(store.projects.names().items(), key=lambda each: each[1])
        rows = [
            row
            for project_id, name in names
            if project in (None, name)
            for row in _rows(name, store.of(project_id), now_micros())
        ]
    if as_json:
        print_json(rows)
        return
    header = ("name", "id", "key", "project", "state", "for", "limits", "used", "last used (UTC)")
    print_table(header, [_shown(row) for row in rows])


@app.command("revoke")
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name or id of a key.")],
    project: Project = DEFAULT_PROJECT,
) -> None:
    """From the next second on the key opens nothing any more, on running servers too."""
    with open_project(context.obj, project) as store:
        key = store.keys.revoke(name)
    typer.echo(f"{key.name}: revoked")


def read_budget(text: str | None) -> tuple[int | None, Period | None]:
    """`1000000/month`. Raises ConfigError."""
    if text is None:
        return None, None
    found = _BUDGET.fullmatch(text)
    if found is None or not int(found[1]):
        raise ConfigError(
            f"--budget {echo(text)}: give tokens and a period, such as 100000/day or 1000000/month"
        )
    return int(found[1]), "day" if found[2] == "day" else "month"


def read_expiry(text: str | None, now: datetime) -> int | None:
    """`90d` or `2027-01-31`, in UTC microseconds. Raises ConfigError for others, and for what is past."""
    if text is None:
        return None
    try:
        if found := re.fullmatch(r"(\d{1,5})([hdw])", text):
            when = now + timedelta(days=int(found[1]) * _DAYS[found[2]])
        else:
            when = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(
            f"--expires {echo(text)}: give a time from now (12h, 90d, 8w) or a day (2027-01-31)"
        ) from None
    if when <= now:
        raise ConfigError(f"--expires {echo(text)} is past: give a later time")
    return int(when.timestamp() * 1e6)


def _rows(project: str, store: Store, now: int) -> list[dict[str, Any]]:
    """The keys of one project; used: tokens in the budget's period, or in this month."""
    from dialoop.access.calendar import day_of, period_start

    today = day_of(now)
    spent = {"day": store.keys.spent(today), "month": store.keys.spent(period_start("month", today))}
    return [
        {
            "name": key.name, "id": key.id, "prefix": key.prefix, "project": project,
            "state": "live" if key.live(now) else "expired" if key.revoked is None else "revoked",
            "scopes": key.scopes, **asdict(key.allowance),
            "used": spent[key.allowance.period or "month"].get(key.id, 0), "last_used": key.last_used,
        }
        for key in store.keys.list()
    ]  # fmt: skip


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    limits = [f"{row[unit]} {unit}" for unit in ("rpm", "tpm") if row[unit] is not None]
    if row["budget"] is not None:
        limits.append(f"{row['budget']}/{row['period']}")
    if row["expires"] is not None:
        limits.append(f"until {day(row['expires'])}")
    return (
        row["name"], row["id"], f"{row['prefix']}…", row["project"], row["state"], ", ".join(row["scopes"]),
        ", ".join(limits) or "-", f"{row['used']} this {row['period'] or 'month'}",
        "-" if row["last_used"] is None else day(row["last_used"]),
    )  # fmt: skip
