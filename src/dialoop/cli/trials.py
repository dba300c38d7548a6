"""`dialoop trials`: arms that a server compares on its users."""

from __future__ import annotations

from typing import Annotated

import typer

from dialoop.cli.projects import DEFAULT_PROJECT, Project, open_project
from dialoop.cli.tables import print_json, print_table
from dialoop.errors import ConfigError, nearest

app = typer.Typer(help="Read trials of HOME/dialoop.toml: which arm users like better.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


@app.command("list")
def list_trials(context: typer.Context, as_json: AsJson = False) -> None:
    """The trials of the home's dialoop.toml and their arms; the first is the control."""
    from dialoop.cli.site import read_site

    trials = read_site(context.obj).trials
    if as_json:
        print_json({name: trial.model_dump(mode="json") for name, trial in trials.items()})
        return
    rows = [
        (name, arm.name, arm.model, arm.prompt or "-", f"{arm.weight:g}", trial.rating)
        for name, trial in trials.items()
        for arm in trial.arms
    ]
    print_table(("trial", "arm", "model", "prompt", "weight", "rating"), rows)


@app.command("read")
def read(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The trial.")],
    project: Project = DEFAULT_PROJECT,
    as_json: AsJson = False,
) -> None:
    """How the arms stand by what users thought (POST /v1/feedback).

    Look as often as you like, and stop when an arm is told from the control: the intervals hold for all looks
    together.
    """
    from dialoop.cli.site import read_site
    from dialoop.evals.sequential import SKEWED
    from dialoop.evals.written import plain
    from dialoop.jobs.trial import read_trial

    trials = read_site(context.obj).trials
    if name not in trials:
        raise ConfigError(f"dialoop.toml has no trial {name!r}{nearest(name, trials)}")
    with open_project(context.obj, project) as store:
        found = read_trial(name, trials[name], store.ratings.of_trial(name))
    if as_json:
        told = {"words": [reading.words() for reading in found.readings], **plain(found)}
        told["arms"] = [{"name": a.name, "users": len(a.values), "mean": plain(a.mean)} for a in found.arms]
        print_json(told)
        return
    rows = [(arm.name, str(len(arm.values)), f"{arm.mean:.3f}" if arm.values else "-") for arm in found.arms]
    print_table(("arm", "users", "mean rating"), rows)
    for reading in found.readings:
        typer.echo(reading.words())
    if found.others:
        typer.echo(f"{found.others} ratings were left out: of another name, or of arms as they were before.")
    if found.parted < SKEWED:
        typer.echo(
            f"Warning: the arms' numbers of users are not what their weights say (p {found.parted:.1g}): "
            f"find out what loses users of one arm before you believe the difference."
        )
