"""Fine-tuning jobs: what was asked for, how far it is, what was said on the way, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.pages import Page, Window, only_row, page_of
from dialoop.store.records import columns_of, record_of
from dialoop.store.tables_jobs import fine_tuning_checkpoints, fine_tuning_events, fine_tuning_jobs

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
OPEN: tuple[Status, ...] = ("validating_files", "queued", "running", "paused")
"""Of jobs that have not ended."""
Level = Literal["info", "warn", "error"]
J, E, C = fine_tuning_jobs.c, fine_tuning_events.c, fine_tuning_checkpoints.c


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something to tell about a job; data comes with metrics, or counts what the message counts."""

    message: str
    level: Level = "info"
    type: Literal["message", "metrics"] = "message"
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was told about a job. seq: counts from 1 within it.  created: UTC microseconds."""

    id: str
    seq: int
    level: str
    type: str
    message: str
    data: Mapping[str, Any] | None
    created: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model that a job left on its way. model: the name that it is served under."""

    id: str
    step: int
    model: str
    metrics: Mapping[str, Any]
    created: int


@dataclass(frozen=True, slots=True)
class Job:
    """One fine-tuning job.

    model: the base as it was called; base: what `Models.resolve` calls it.  method: OpenAI's word.
    settings, hyperparameters: as the client gave them, the latter without `auto` once the files were read.
    recipe: what the run takes.  read: bytes of the run's events that were taken in.  falls: ends of its
    process without a word, in a row.  created, finished, estimated_finish: UTC microseconds.
    """

    id: str
    project_id: str
    model: str
    base: str
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    method: str
    settings: Mapping[str, Any]
    metadata: Mapping[str, str] | None
    hyperparameters: Mapping[str, Any]
    created: int
    status: Status = "validating_files"
    error: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] | None = None
    fine_tuned_model: str | None = None
    result_files: Sequence[str] = ()
    trained_tokens: int | None = None
    step: int = 0
    steps: int | None = None
    read: int = 0
    falls: int = 0
    estimated_finish: int | None = None
    finished: int | None = None


@dataclass(frozen=True, slots=True)
class Jobs:
    """The fine-tuning jobs of one project."""

    engine: sa.Engine
    project: str

    def create(
        self,
        *,
        model: str,
        base: str,
        training_file: str,
        validation_file: str | None,
        suffix: str | None,
        seed: int,
        method: str,
        settings: Mapping[str, Any],
        metadata: Mapping[str, str] | None,
        hyperparameters: Mapping[str, Any],
    ) -> Job:
        """A new job, whose files wait to be read."""
        job = Job(
            new_id("ftjob"), self.project, model, base, training_file, validation_file, suffix, seed, method,
            settings, metadata, hyperparameters, now_micros(),
        )  # fmt: skip
        with writing(self.engine).begin() as connection:
            connection.execute(sa.insert(fine_tuning_jobs).values(**columns_of(job)))
            _tell(connection, job, [NewEvent(f"Created fine-tuning job: {job.id}")])
        return job

    def get(self, job_id: str) -> Job:
        """One job. Raises UnknownRecordError."""
        query = sa.select(fine_tuning_jobs).where(*self._mine(job_id))
        return _job(only_row(self.engine, query, "fine-tuning job", job_id))

    def list(
        self, window: Window, *, model: str | None = None, metadata: Mapping[str, str] = {}
    ) -> Page[Job]:
        """The jobs that began with a model and have all of these pairs in their metadata."""
        query = sa.select(fine_tuning_jobs).where(J.project_id == self.project)
        query = query if model is None else query.where(J.model == model)
        return page_of(self.engine, matching(query, J.metadata, metadata), J.id, window, _job)

    def beginning_with(self, base: str) -> tuple[str, ...]:
        """The ids of jobs that have not ended and train on `base`, as `Models.resolve` calls it."""
        query = sa.select(J.id).where(J.project_id == self.project, J.base == base, J.status.in_(OPEN))
        with self.engine.connect() as connection:
            return tuple(connection.execute(query.order_by(J.id)).scalars())

    def change(
        self, job_id: str, among: Sequence[Status], events: Sequence[NewEvent] = (), **values: Any
    ) -> Job | None:
        """Set columns of a job whose status is one of `among`, and tell events; None where it is not."""
        with writing(self.engine).begin() as connection:
            mine = self._mine(job_id)
            query = sa.select(fine_tuning_jobs).where(*mine)
            row = connection.execute(query.where(J.status.in_(among))).one_or_none()
            if row is None:
                return None
            if values:
                connection.execute(sa.update(fine_tuning_jobs).where(*mine).values(**values))
                row = connection.execute(query).one()
            _tell(connection, job := _job(row), events)
        return job

    def add_checkpoint(self, job_id: str, step: int, model: str, metrics: Mapping[str, Any]) -> None:
        """Record a checkpoint, once a step."""
        values = {
            "id": new_id("ftckpt"), "project_id": self.project, "parent_id": job_id, "step": step,
            "model": model, "metrics": metrics, "created": now_micros(),
        }  # fmt: skip
        with writing(self.engine).begin() as connection:
            known = sa.select(C.id).where(C.parent_id == job_id, C.step == step)
            if connection.execute(known).one_or_none() is None:
                connection.execute(sa.insert(fine_tuning_checkpoints).values(**values))

    def drop_checkpoint(self, model: str) -> None:
        """Forget a checkpoint, whose model is gone."""
        with writing(self.engine).begin() as connection:
            mine = (C.model == model, C.project_id == self.project)
            connection.execute(sa.delete(fine_tuning_checkpoints).where(*mine))

    def events(self, job_id: str, window: Window) -> Page[Event]:
        """What was told about a job. Raises UnknownRecordError."""
        query = sa.select(fine_tuning_events).where(E.parent_id == self.get(job_id).id)
        return page_of(self.engine, query, E.id, window, lambda row: record_of(Event, row))

    def events_after(self, job_id: str, seq: int) -> tuple[Event, ...]:
        """What was told about a job after its event `seq`, in order."""
        query = sa.select(fine_tuning_events).where(
            E.project_id == self.project, E.parent_id == job_id, E.seq > seq
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(E.seq)).all()
        return tuple(record_of(Event, row) for row in rows)

    def checkpoints(self, job_id: str, window: Window) -> Page[Checkpoint]:
        """The models that a job left on its way. Raises UnknownRecordError."""
        query = sa.select(fine_tuning_checkpoints).where(C.parent_id == self.get(job_id).id)
        return page_of(self.engine, query, C.id, window, lambda row: record_of(Checkpoint, row))

    def _mine(self, job_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (J.id == job_id, J.project_id == self.project)


def matching(
    query: sa.Select[Any], column: sa.ColumnElement[Any], pairs: Mapping[str, str]
) -> sa.Select[Any]:
    """`query` without the rows whose JSON object in `column` lacks one of these pairs."""
    for key, value in pairs.items():
        entry = sa.func.json_each(column).table_valued("key", "value")
        query = query.where(sa.exists().where(entry.c.key == key, entry.c.value == value))
    return query


def open_jobs(engine: sa.Engine) -> tuple[Job, ...]:
    """The jobs of all projects that have not ended, by age: for the runner, which works for all."""
    query = sa.select(fine_tuning_jobs).where(J.status.in_(OPEN)).order_by(J.created, J.id)
    with engine.connect() as connection:
        return tuple(map(_job, connection.execute(query).all()))


def _tell(connection: sa.Connection, job: Job, events: Sequence[NewEvent]) -> None:
    if not events:
        return
    last = connection.execute(sa.select(sa.func.max(E.seq)).where(E.parent_id == job.id)).scalar() or 0
    rows = [
        {
            "id": new_id("ftevent"), "project_id": job.project_id, "parent_id": job.id, "seq": last + i,
            "level": event.level, "type": event.type, "message": event.message, "data": event.data,
            "created": now_micros(),
        }
        for i, event in enumerate(events, 1)
    ]  # fmt: skip
    connection.execute(sa.insert(fine_tuning_events), rows)


def _job(row: sa.Row[Any]) -> Job:
    return record_of(Job, row)
