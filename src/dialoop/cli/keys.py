"""`dialoop keys`: who may use the server, for what, and how much of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from dialoop.cli.tables import day, print_json, print_table
from dialoop.errors import ConfigError, echo

if TYPE_CHECKING:
    from pathlib import Path

    from dialoop.store.keys import Key, Period
    from dialoop.store.registry import Store

app = typer.Typer(
    help="Make, list and revoke API keys; with one key, the server asks every request for one.",
    no_args_is_help=True,
)

DEFAULT_PROJECT = "default"
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
    with _store(context.obj, project, make=True) as store:
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

    now = now_micros()
    with Store.open(context.obj) as store:
        rows = [
            _told(name, key, store.of(project_id), now)
            for project_id, name in sorted(store.projects.names().items(), key=lambda each: each[1])
            for key in (store.of(project_id).keys.list() if project in (None, name) else ())
        ]
    if as_json:
        print_json(rows)
        return
    header = ("name", "id", "key", "project", "state", "for", "limits", "used", "last used (UTC)")
    print_table(header, [tuple(str(row[column]) for column in _COLUMNS) for row in rows])


_COLUMNS = ("name", "id", "prefix", "project", "state", "scopes", "limits", "used", "last_used")


@app.command("revoke")
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name or id of a key.")],
    project: Project = DEFAULT_PROJECT,
) -> None:
    """From the next second on the key opens nothing any more, on running servers too."""
    with _store(context.obj, project, make=False) as store:
        key = store.keys.revoke(name)
    typer.echo(f"{key.name}: revoked")


def _store(home: Path, project: str, *, make: bool) -> Store:
    """The store, seen by the project of that name. Raises ConfigError where there is none, unless made."""
    from dialoop.errors import nearest
    from dialoop.store.registry import Store

    store = Store.open(home)
    ids = {name: project_id for project_id, name in store.projects.names().items()}
    if project not in ids and not make:
        raise ConfigError(f"no project {echo(project)}{nearest(project, ids)}")
    return store.of(ids.get(project) or store.projects.ensure(project))


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


def _told(project: str, key: Key, store: Store, now: int) -> dict[str, object]:
    from dialoop.access.calendar import day_of, period_start

    allowed = key.allowance
    period = allowed.period or "month"
    used = store.keys.spent(period_start(period, day_of(now))).get(key.id, 0)
    limits = [f"{n} {unit}" for n, unit in ((allowed.rpm, "rpm"), (allowed.tpm, "tpm")) if n is not None]
    if allowed.budget is not None:
        limits.append(f"{allowed.budget}/{period}")
    if allowed.expires is not None:
        limits.append(f"until {day(allowed.expires)}")
    state = "live" if key.live(now) else "expired" if key.revoked is None else "revoked"
    return {
        "name": key.name, "id": key.id, "prefix": f"{key.prefix}…", "project": project, "state": state,
        "scopes": ", ".join(key.scopes), "limits": ", ".join(limits) or "-", "used": f"{used} this {period}",
        "last_used": "-" if key.last_used is None else day(key.last_used),
    }  # fmt: skip
