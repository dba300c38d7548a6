"""Runs and reports: what was done, with what, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from dialoop import __version__
from dialoop.errors import StoreError, echo
from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.tables import reports, runs

T = TypeVar("T")
RunStatus = Literal["running", "completed", "failed", "cancelled"]
FINAL: tuple[RunStatus, ...] = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Run:
    """One piece of work. started, finished: UTC microseconds; finished is None while it runs."""

    id: str
    kind: str
    status: str
    recipe: Mapping[str, Any]
    inputs: Mapping[str, Any]
    metrics: Mapping[str, Any]
    code_version: str
    started: int
    finished: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """A report's summary, and where its files lie. created: UTC microseconds."""

    id: str
    kind: str
    title: str
    path: Path | None
    summary: Mapping[str, Any]
    run_id: str | None
    created: int


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one project."""

    engine: sa.Engine
    project: str

    def start(self, kind: str, recipe: Mapping[str, Any], inputs: Mapping[str, Any]) -> Run:
        """Record that a run begins; `recipe` and `inputs` must be JSON."""
        run = Run(
            new_id("run"),
            kind,
            "running",
            as_json(recipe, "recipe"),
            as_json(inputs, "inputs"),
            {},
            __version__,
            now_micros(),
            None,
        )
        row = {name: getattr(run, name) for name in Run.__slots__}
        with writing(self.engine).begin() as connection:
            connection.execute(sa.insert(runs).values(project_id=self.project, **row))
        return run

    def finish(self, run_id: str, status: RunStatus, metrics: Mapping[str, Any]) -> Run:
        """Record how a run ended, once. Raises StoreError for an unknown or finished run."""
        if status not in FINAL:
            raise StoreError(f"status {echo(status)} does not end a run: use one of {', '.join(FINAL)}")
        ended = {"status": status, "metrics": as_json(metrics, "metrics"), "finished": now_micros()}
        with writing(self.engine).begin() as connection:
            mine = sa.and_(runs.c.id == run_id, runs.c.project_id == self.project, runs.c.status == "running")
            if connection.execute(sa.update(runs).where(mine).values(**ended)).rowcount == 1:
                return _run(connection.execute(sa.select(runs).where(runs.c.id == run_id)).one())
        raise StoreError(
            f"run {echo(run_id)} has status {self.get(run_id).status}, expected running: start a new run"
        )

    def get(self, run_id: str) -> Run:
        """One run. Raises StoreError."""
        query = sa.select(runs).where(runs.c.id == run_id, runs.c.project_id == self.project)
        with self.engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise StoreError(f"no run {echo(run_id)} in this store: check the id and --home")
        return _run(row)

    def list(self) -> tuple[Run, ...]:
        """All runs, the newest first."""
        query = sa.select(runs).where(runs.c.project_id == self.project)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(runs.c.started.desc(), runs.c.id.desc())).all()
        return tuple(_run(row) for row in rows)


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports of one project."""

    engine: sa.Engine
    project: str
    home: Path

    def add(
        self,
        kind: str,
        title: str,
        summary: Mapping[str, Any],
        *,
        path: Path | None = None,
        run_id: str | None = None,
    ) -> Report:
        """Record a report; `summary` must be JSON. A path below the home moves with it."""
        report = Report(
            new_id("report"), kind, title, path, as_json(summary, "summary"), run_id, now_micros()
        )
        row = {name: getattr(report, name) for name in Report.__slots__}
        row["path"] = None if path is None else portable(path, self.home)
        try:
            with writing(self.engine).begin() as connection:
                connection.execute(sa.insert(reports).values(project_id=self.project, **row))
        except sa.exc.IntegrityError as error:
            raise StoreError(
                f"no run {echo(run_id)} in this store: start the run before its report"
            ) from error
        return report

    def list(self) -> tuple[Report, ...]:
        """All reports, the newest first."""
        query = sa.select(reports).where(reports.c.project_id == self.project)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(reports.c.created.desc(), reports.c.id.desc())).all()
        return tuple(_report(row, self.home) for row in rows)


def as_json(value: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """A copy of `value` as JSON holds it. Raises StoreError for NaN and for what is not JSON."""
    try:
        return dict(json.loads(json.dumps(dict(value or {}), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise StoreError(f"the {what} must be JSON without NaN: {error}: convert the value first") from error


def portable(path: Path, home: Path) -> str:
    """`path` relative to the home where it lies below, so that a home can be moved."""
    absolute = path.resolve()
    return absolute.relative_to(home).as_posix() if absolute.is_relative_to(home) else str(absolute)


def record_of(kind: type[T], row: sa.Row[Any]) -> T:
    """A row as the dataclass whose fields are called like its columns."""
    return kind(**{field.name: row._mapping[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def columns_of(record: Any) -> dict[str, Any]:
    """The inverse."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _run(row: sa.Row[Any]) -> Run:
    return record_of(Run, row)


def _report(row: sa.Row[Any], home: Path) -> Report:
    values = {name: row._mapping[name] for name in Report.__slots__}
    values["path"] = None if row.path is None else home / row.path
    return Report(**values)
