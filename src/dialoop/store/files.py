"""Files that clients upload and jobs write: rows here, bytes below the home."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from dialoop.errors import StoreError, UnknownRecordError
from dialoop.store.artefacts import flush_directory, reason, staged, sweep
from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.pages import Page, Window, only_row, page_of
from dialoop.store.records import record_of
from dialoop.store.tables import files

UploadPurpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
Purpose = Literal[UploadPurpose, "assistants_output", "batch_output", "fine-tune-results"]
BATCH_LIFE = 30 * 86400
"""Seconds that files of purpose `batch` are kept where nothing else is asked for, as at OpenAI."""
T = files.c


@dataclass(frozen=True, slots=True)
class File:
    """One file. created, expires: UTC microseconds; expires None = kept until it is deleted."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created: int
    expires: int | None


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one project. What has expired is gone at once, its bytes at the next `purge`."""

    engine: sa.Engine
    project: str
    home: Path

    @property
    def root(self) -> Path:
        """Where the bytes lie: root / id."""
        return self.home / "files"

    def staged(self) -> AbstractContextManager[Path]:
        """A directory to write a new file into, removed at the end; `adopt` takes what is finished."""
        return staged(self.root)

    def adopt(
        self,
        path: Path,
        *,
        filename: str,
        purpose: str,
        seconds: int | None = None,
        file_id: str | None = None,
    ) -> File:
        """Move a finished file, from `staged` or elsewhere below the home, into the store.

        All or nothing.  seconds: how long it is kept; None = for ever, a batch's input for 30 days.
        file_id: one given out before (`new_id("file")`); a file of that id that is here already is kept.
        Raises StoreError where the disk refuses.
        """
        seconds = BATCH_LIFE if seconds is None and purpose == "batch" else seconds
        created = now_micros()
        expires = None if seconds is None else created + seconds * 1_000_000
        try:
            _flush(path)
            made = File(file_id or new_id("file"), filename, purpose, path.stat().st_size, created, expires)
            return self._publish(path, made)
        except (OSError, sa.exc.OperationalError) as error:
            raise StoreError(
                f"{self.root}: cannot be written: {reason(error)}; nothing was kept: free space"
            ) from error

    def _publish(self, path: Path, made: File) -> File:
        target = self.root / made.id
        try:
            with writing(self.engine).begin() as connection:
                before = connection.execute(sa.select(files).where(T.id == made.id)).one_or_none()
                if before is not None:
                    return _file(before)
                row = {name: getattr(made, name) for name in File.__slots__}
                connection.execute(sa.insert(files).values(project_id=self.project, **row))
                self.root.mkdir(parents=True, exist_ok=True)
                path.rename(target)
                flush_directory(self.root)
        except BaseException:
            if not path.exists() and target.exists():
                target.rename(path)
            raise
        return made

    def get(self, file_id: str) -> File:
        """One file. Raises UnknownRecordError."""
        return _file(only_row(self.engine, self._mine().where(T.id == file_id), "file", file_id))

    def path(self, file_id: str) -> Path:
        """Where a file's bytes lie until it is deleted, to be read only. Raises UnknownRecordError."""
        return self.root / self.get(file_id).id

    def link(self, file_id: str, target: Path) -> File:
        """Give the bytes a second name below the home, where they stay whatever becomes of the file.

        For work that reads the file later or for long. Raises UnknownRecordError.
        """
        found = self.get(file_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.root / found.id, target)
        except FileNotFoundError:
            raise UnknownRecordError("file", file_id) from None
        return found

    def list(self, window: Window, *, purpose: str | None = None) -> Page[File]:
        """The files, perhaps of one purpose."""
        query = self._mine() if purpose is None else self._mine().where(T.purpose == purpose)
        return page_of(self.engine, query, T.id, window, _file)

    def delete(self, file_id: str) -> None:
        """Delete a file; whoever has it open or linked keeps its bytes. Raises UnknownRecordError."""
        found = self.get(file_id)
        with writing(self.engine).begin() as connection:
            connection.execute(sa.delete(files).where(T.id == found.id))
        (self.root / found.id).unlink(missing_ok=True)

    def purge(self) -> int:
        """Delete what has expired, of every project; how many files that was."""
        with writing(self.engine).begin() as connection:
            gone = sa.delete(files).where(T.expires <= now_micros()).returning(T.id)
            ids = list(connection.execute(gone).scalars())
        for file_id in ids:
            (self.root / file_id).unlink(missing_ok=True)
        return len(ids)

    def tidy(self) -> int:
        """Remove what killed processes left half-written or half-deleted; how many files that was."""
        left = sweep(self.root)
        if not self.root.is_dir():
            return left
        # The lock of a writing transaction keeps others from being between their file and their row.
        with writing(self.engine).begin() as connection:
            known = set(connection.execute(sa.select(T.id)).scalars())
            strays = [p for p in self.root.iterdir() if p.name.startswith("file-") and p.name not in known]
            for path in strays:
                path.unlink(missing_ok=True)
        return left + len(strays)

    def _mine(self) -> sa.Select[Any]:
        alive = sa.or_(T.expires.is_(None), T.expires > now_micros())
        return sa.select(files).where(T.project_id == self.project, alive)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _file(row: sa.Row[Any]) -> File:
    return record_of(File, row)
