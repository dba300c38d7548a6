"""Opens the database of a home: SQLite in WAL mode, migrated, and watched over by a sentinel file.

SQLite takes an emptied file for a new database. The sentinel `store.json` lies outside it and remembers that
there was one, so that a store that was lost is never replaced by an empty one in silence.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from dialoop.errors import StoreError, echo
from dialoop.store.artefacts import reason, write_text
from dialoop.store.identity import new_id, now_micros
from dialoop.store.tables import metadata, projects

DATABASE = "store.sqlite3"
SENTINEL = "store.json"
BUSY_SECONDS = 30
MAGIC = b"SQLite format 3\x00"
RESTORE = "restore the file from a backup, or move {sentinel} away to begin an empty store"


def open_database(home: Path) -> tuple[sa.Engine, str]:
    """The engine of the home's database and the id of its default project. Raises StoreError."""
    path, sentinel = home / DATABASE, home / SENTINEL
    try:
        home.mkdir(parents=True, exist_ok=True)
        with exclusive(home / ".lock"):
            expected = _read_sentinel(sentinel)
            _check_file(path, sentinel, expected)
            engine = make_engine(path)
            try:
                project = _prepare(engine, path, sentinel, expected)
            except BaseException:
                engine.dispose()
                raise
    except OSError as error:
        raise StoreError(
            f"{home}: {reason(error)}: give a directory that can be written, with --home"
        ) from error
    return engine, project


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file, waiting for whoever holds it; a killed holder lets go by itself."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_engine(path: Path) -> sa.Engine:
    """An engine on an SQLite file; durable at every commit. Write through `writing(engine)`."""
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    return engine


def writing(engine: sa.Engine) -> sa.Engine:
    """The same engine, whose transactions take the write lock at once instead of failing half-way."""
    return engine.execution_options(dialoop_write=True)


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("dialoop_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _read_sentinel(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("instance"), str):
        raise StoreError(
            f"{path}: is not the JSON that dialoop wrote: restore it from a backup, or delete it to have "
            f"it made again from {DATABASE}"
        )
    return value


def _check_file(path: Path, sentinel: Path, expected: dict[str, Any] | None) -> None:
    """Raises StoreError for a database that is missing, emptied or of another format."""
    mend = RESTORE.format(sentinel=sentinel)
    size = path.stat().st_size if path.exists() else None
    if expected is not None and not size:
        what = "is missing" if size is None else "is empty"
        raise StoreError(f"{path}: {what}, though {sentinel.name} says that a store lies here: {mend}")
    if size:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        if start != MAGIC:
            raise StoreError(f"{path}: does not start as an SQLite database, it is damaged: {mend}")


def _prepare(engine: sa.Engine, path: Path, sentinel: Path, expected: dict[str, Any] | None) -> str:
    try:
        _check_pages(engine, path, sentinel)
        revision = migrate(engine)
        project = _default_project(engine)
    except sa.exc.DatabaseError as error:
        raise StoreError(f"{path}: {error.orig}: {RESTORE.format(sentinel=sentinel)}") from error
    if expected is not None and expected["instance"] != project:
        raise StoreError(
            f"{path}: belongs to store {project}, {sentinel.name} to {echo(expected['instance'])}: "
            f"restore both files from the same backup"
        )
    stated = {"instance": project, "schema": revision}
    if stated != expected:
        write_text(sentinel, json.dumps(stated) + "\n")
    return project


def _check_pages(engine: sa.Engine, path: Path, sentinel: Path) -> None:
    with engine.connect() as connection:
        verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if verdict != "ok":
        found = " ".join(str(verdict).split())[:120]
        raise StoreError(f"{path}: is damaged ({found}): {RESTORE.format(sentinel=sentinel)}")


def migrate(engine: sa.Engine) -> str:
    """Bring the database to the newest schema in one transaction; the revision that it has then."""
    config = Config()
    config.set_main_option(
        "script_location", os.fspath(Path(str(files("dialoop.store") / "migrations"))).replace("%", "%%")
    )
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head() or ""
    with writing(engine).begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in {step.revision for step in script.walk_revisions()}:
            raise StoreError(
                f"{engine.url.database}: has schema {echo(current)}, this dialoop knows schemas up to "
                f"{head}: upgrade dialoop"
            )
        if current != head:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return head


def schema_differences(engine: sa.Engine) -> list[Any]:
    """What the tables in code and the migrated database disagree about; empty where they agree."""
    from alembic.autogenerate import compare_metadata

    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))


def _default_project(engine: sa.Engine) -> str:
    with writing(engine).begin() as connection:
        found = connection.execute(sa.select(projects.c.id).where(projects.c.name == "default")).scalar()
        if found is None:
            found = new_id("proj")
            connection.execute(sa.insert(projects).values(id=found, name="default", created=now_micros()))
    return str(found)
