"""HOME/dialoop.toml: what a server is besides its models. Flags go before it."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import typer
from pydantic import Field

from dialoop.backends.remote import RemoteEngine
from dialoop.backends.routed import Route, RoutedEngine
from dialoop.backends.upstream import Upstream, check_name, upstream_from
from dialoop.config import Settings, validate
from dialoop.config.trials import TrialSettings
from dialoop.errors import ConfigError, EngineDownError
from dialoop.safety.policy import SafetySettings
from dialoop.serve.house import Retention
from dialoop.types import Engine

FILE = "dialoop.toml"


class Site(Settings):
    """The file's tables."""

    upstreams: Mapping[str, Upstream] = Field(default_factory=dict)
    """Servers whose models are served as well, by name; their keys come from the environment."""
    safety: SafetySettings = SafetySettings()
    """The moderation filter."""
    retention: Retention = Retention()
    """How long what clients have the server keep stays."""
    trials: Mapping[str, TrialSettings] = Field(default_factory=dict)
    """Names that are asked as models are, whose users are parted among arms."""


def read_site(home: Path) -> Site:
    """The settings of a home, the defaults where it has no file. Raises ConfigError."""
    path = home / FILE
    if not path.exists():
        return Site()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}: mend it, or move it away") from error
    return validate(Site, table, str(path))


def upstreams_of(site: Site, flags: Sequence[str]) -> dict[str, Upstream]:
    """Those of the file, and of NAME=URL flags. Raises ConfigError."""
    return {check_name(name): each for name, each in site.upstreams.items()} | dict(map(upstream_from, flags))


def gateway(upstreams: Mapping[str, Upstream], local: Engine | None) -> RoutedEngine:
    """The local models and the upstreams' as one engine; an upstream that is down is told of and kept."""
    remotes = [RemoteEngine(name, upstream) for name, upstream in upstreams.items()]
    for problem in asyncio.run(_listen(remotes)):
        typer.echo(f"dialoop: {problem}; its models are served once it answers", err=True)
    away = [Route(each, upstreams[each.name].weight) for each in remotes]
    return RoutedEngine([*([] if local is None else [Route(local)]), *away])


def check_trials(site: Site, served: Collection[str]) -> None:
    """Tell of arms that nobody serves yet. Raises ConfigError for a trial that is named as a model is."""
    for name, trial in site.trials.items():
        if name in served:
            raise ConfigError(f"trials.{name}: a model has this name: name the trial otherwise")
        for arm in trial.arms:
            if arm.model not in served:
                problem = f"trial {name}: nobody serves {arm.model}, the model of arm {arm.name}"
                typer.echo(f"dialoop: {problem}; until someone does its users are refused", err=True)


async def _listen(remotes: Sequence[RemoteEngine]) -> list[EngineDownError]:
    told = await asyncio.gather(*(each.refresh() for each in remotes), return_exceptions=True)
    return [error for error in told if isinstance(error, EngineDownError)]
