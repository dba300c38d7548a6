"""Batches: files of requests that are answered in the background."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from dialoop.errors import StoreError, echo
from dialoop.store.database import writing
from dialoop.store.files import Files
from dialoop.store.identity import new_id, now_micros
from dialoop.store.pages import Page, Window, only_row, page_of
from dialoop.store.records import record_of
from dialoop.store.tables import batches

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]  # fmt: skip
OPEN: tuple[BatchStatus, ...] = ("validating", "in_progress", "finalizing", "cancelling")
"""Of batches that have not ended."""
T = batches.c


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. created, expires and the times at which it came to a status: UTC microseconds.

    key_id: of whoever made it.  output_seconds: the life of its output files.  models: that its lines name.
    usage: tokens.  errors: why it failed, as OpenAI tells it.  The ids of its output files are given out
    before the files are there: an ended batch has them.
    """

    id: str
    project_id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created: int
    expires: int
    key_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    output_seconds: int | None = None
    status: BatchStatus = "validating"
    times: Mapping[str, int] = field(default_factory=dict)
    models: Sequence[str] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: Mapping[str, int] = field(default_factory=dict)
    errors: Sequence[Mapping[str, Any]] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.status not in OPEN


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of one project; `open` and `change` are for who runs them, whatever the project."""

    engine: sa.Engine
    project: str
    home: Path

    def folder(self, batch_id: str) -> Path:
        """Where a batch that has not ended keeps its input and what it has answered."""
        return self.home / "batches" / batch_id

    def create(
        self,
        *,
        input_file_id: str,
        endpoint: str,
        window: str,
        seconds: int,
        key_id: str | None,
        metadata: Mapping[str, str],
        output_seconds: int | None,
    ) -> Batch:
        """Begin a batch; it keeps the bytes of its input. Raises UnknownRecordError."""
        now, batch_id = now_micros(), new_id("batch_")
        made = Batch(
            batch_id, self.project, endpoint, input_file_id, window, now, now + seconds * 1_000_000, key_id,
            dict(metadata), output_seconds,
        )  # fmt: skip
        row = {name: getattr(made, name) for name in Batch.__slots__}
        files = Files(self.engine, self.project, self.home)
        with writing(self.engine).begin() as connection:
            files.link(input_file_id, self.folder(batch_id) / "input.jsonl")
            connection.execute(sa.insert(batches).values(**{**row, "models": [], "errors": []}))
        return made

    def get(self, batch_id: str) -> Batch:
        """One batch. Raises UnknownRecordError."""
        with self.engine.connect() as connection:
            return self._read(connection, batch_id)

    def list(self, window: Window) -> Page[Batch]:
        """The batches."""
        query = sa.select(batches).where(T.project_id == self.project)
        return page_of(self.engine, query, T.id, window, _batch)

    def cancel(self, batch_id: str) -> Batch:
        """Ask for the end of a batch. Raises UnknownRecordError, and StoreError where it has ended."""
        with writing(self.engine).begin() as connection:
            before = self._read(connection, batch_id)
            if before.ended or before.status == "finalizing":
                raise StoreError(
                    f"batch {echo(batch_id)} is {before.status}: only one under way can be cancelled"
                )
            self._move(connection, before, "cancelling", {})
            return self._read(connection, batch_id)

    def open(self) -> tuple[Batch, ...]:
        """Those of every project that have not ended, the oldest first."""
        query = sa.select(batches).where(T.status.in_(OPEN)).order_by(T.id)
        with self.engine.connect() as connection:
            return tuple(map(_batch, connection.execute(query)))

    def change(self, batch: Batch, status: BatchStatus | None = None, **values: Any) -> Batch | None:
        """`batch` with other values; None where it came to another status meanwhile."""
        with writing(self.engine).begin() as connection:
            if not self._move(connection, batch, status or batch.status, values):
                return None
            return _batch(connection.execute(sa.select(batches).where(T.id == batch.id)).one())

    def tidy(self) -> int:
        """Remove what ended batches kept; how many folders that was."""
        root = self.folder("")
        # The lock of a writing transaction keeps others from being between their folder and their row.
        with writing(self.engine).begin() as connection:
            going = set(connection.execute(sa.select(T.id).where(T.status.in_(OPEN))).scalars())
            left = [p for p in root.glob("batch_*") if p.name not in going]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return len(left)

    def _move(
        self, connection: sa.Connection, batch: Batch, status: BatchStatus, values: Mapping[str, Any]
    ) -> bool:
        times = batch.times if status == batch.status else {**batch.times, status: now_micros()}
        same = sa.and_(T.id == batch.id, T.status == batch.status)
        change = sa.update(batches).where(same).values(status=status, times=times, **values)
        return connection.execute(change).rowcount == 1

    def _read(self, connection: sa.Connection, batch_id: str) -> Batch:
        query = sa.select(batches).where(T.project_id == self.project, T.id == batch_id)
        return _batch(only_row(connection, query, "batch", batch_id))


def _batch(row: sa.Row[Any]) -> Batch:
    return record_of(Batch, row)
