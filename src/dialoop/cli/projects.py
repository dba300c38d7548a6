"""Opening the store of a home as one of its projects, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dialoop.errors import ConfigError, echo

if TYPE_CHECKING:
    from pathlib import Path

    from dialoop.store.registry import Store

DEFAULT_PROJECT = "default"
Project = Annotated[str, typer.Option(help="The project whose it is.")]


def open_project(home: Path, project: str, *, make: bool = False) -> Store:
    """The store, seen by the project of that name. Raises ConfigError where there is none, unless made."""
    from dialoop.errors import nearest
    from dialoop.store.registry import Store

    store = Store.open(home)
    ids = {name: project_id for project_id, name in store.projects.names().items()}
    if project not in ids and not make:
        store.close()
        raise ConfigError(f"no project {echo(project)}{nearest(project, ids)}")
    return store.of(ids.get(project) or store.projects.ensure(project))
