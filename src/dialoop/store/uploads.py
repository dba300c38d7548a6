"""Uploads: files that come in parts, and are put together when all have come."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from dialoop.errors import StoreError, echo
from dialoop.store.artefacts import CHUNK, discard, staged, sweep
from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.pages import only_row
from dialoop.store.tables import upload_parts, uploads

LIFE_SECONDS = 3600
"""In which an upload must be completed, as at OpenAI."""
UploadStatus = Literal["pending", "completed", "cancelled", "expired"]
U, P = uploads.c, upload_parts.c


@dataclass(frozen=True, slots=True)
class Upload:
    """bytes: that were announced.  seconds: the file's life.  created, expires: UTC microseconds."""

    id: str
    filename: str
    purpose: str
    mime_type: str
    bytes: int
    seconds: int | None
    created: int
    expires: int
    status: UploadStatus

    @property
    def file_id(self) -> str:
        """Of the file that it becomes: the same however often completing it is tried."""
        return f"file-{self.id.rpartition('_')[2]}"


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the bytes of an upload. created: UTC microseconds."""

    id: str
    upload_id: str
    bytes: int
    created: int


@dataclass(frozen=True, slots=True)
class Uploads:
    """The uploads of one project."""

    engine: sa.Engine
    project: str
    home: Path

    @property
    def root(self) -> Path:
        """Where the parts lie: root / upload / part."""
        return self.home / "uploads"

    def staged(self) -> AbstractContextManager[Path]:
        """A directory to write a part into, removed at the end."""
        return staged(self.root)

    def create(
        self, *, filename: str, purpose: str, mime_type: str, size: int, seconds: int | None
    ) -> Upload:
        """Announce a file of `size` bytes."""
        now = now_micros()
        made = Upload(
            new_id("upload_"), filename, purpose, mime_type, size, seconds, now,
            now + LIFE_SECONDS * 1_000_000, "pending",
        )  # fmt: skip
        row = {name: getattr(made, name) for name in Upload.__slots__}
        with writing(self.engine).begin() as connection:
            connection.execute(sa.insert(uploads).values(project_id=self.project, **row))
        return made

    def get(self, upload_id: str) -> Upload:
        """One upload. Raises UnknownRecordError."""
        with self.engine.connect() as connection:
            return self._read(connection, upload_id)

    def add(self, upload_id: str, path: Path) -> Part:
        """Take a part in. Raises UnknownRecordError, and StoreError where the upload takes no such part."""
        part = Part(new_id("part_"), upload_id, path.stat().st_size, now_micros())
        folder = self.root / upload_id
        with writing(self.engine).begin() as connection:
            upload = self._pending(connection, upload_id)
            query = sa.select(sa.func.coalesce(sa.func.sum(P.bytes), 0)).where(P.upload_id == upload_id)
            total = int(connection.execute(query).scalar_one()) + part.bytes
            if total > upload.bytes:
                raise StoreError(
                    f"the parts have {total} bytes, the upload was announced with {upload.bytes}: "
                    f"announce it with as many as it has"
                )
            row = {name: getattr(part, name) for name in Part.__slots__}
            connection.execute(sa.insert(upload_parts).values(project_id=self.project, **row))
            folder.mkdir(parents=True, exist_ok=True)
            path.rename(folder / part.id)
        return part

    def assemble(self, upload_id: str, part_ids: Sequence[str], target: Path) -> str:
        """Write the parts to `target` in this order; the md5 of all.

        Raises UnknownRecordError, and StoreError where the parts are not the whole file.
        """
        with self.engine.connect() as connection:
            upload = self._pending(connection, upload_id)
            query = sa.select(P.id, P.bytes).where(P.upload_id == upload_id)
            sizes = {row.id: row.bytes for row in connection.execute(query)}
        total = 0
        for number, part_id in enumerate(part_ids):
            if part_id not in sizes:
                raise StoreError(
                    f"part_ids[{number}] = {echo(part_id)} is no part of the upload, or came twice"
                )
            total += sizes.pop(part_id)
        if total != upload.bytes:
            raise StoreError(
                f"the parts have {total} bytes, the upload was announced with {upload.bytes}: name all parts"
            )
        return _join([self.root / upload_id / part_id for part_id in part_ids], target)

    def finish(self, upload_id: str, status: Literal["completed", "cancelled"]) -> Upload:
        """End a pending upload; its parts are deleted. Raises UnknownRecordError or StoreError."""
        with writing(self.engine).begin() as connection:
            self._pending(connection, upload_id)
            connection.execute(sa.update(uploads).where(U.id == upload_id).values(status=status))
            connection.execute(sa.delete(upload_parts).where(P.upload_id == upload_id))
            ended = self._read(connection, upload_id)
        discard(self.root / upload_id, self.root)
        return ended

    def purge(self) -> int:
        """Delete the parts of what expired, of every project; how many uploads that was."""
        over = sa.and_(U.status == "pending", U.expires <= now_micros())
        with writing(self.engine).begin() as connection:
            ids = list(connection.execute(sa.select(U.id).where(over)).scalars())
            connection.execute(sa.delete(upload_parts).where(P.upload_id.in_(ids)))
            connection.execute(sa.update(uploads).where(U.id.in_(ids)).values(status="expired"))
        for upload_id in ids:
            discard(self.root / upload_id, self.root)
        return len(ids)

    def tidy(self) -> int:
        """Remove what killed processes left; how much that was."""
        left = sweep(self.root)
        if not self.root.is_dir():
            return left
        with writing(self.engine).begin() as connection:
            pending = set(connection.execute(sa.select(U.id).where(U.status == "pending")).scalars())
            ended = [p for p in self.root.iterdir() if p.name.startswith("upload_") and p.name not in pending]
        for folder in ended:
            discard(folder, self.root)
        return left + len(ended)

    def _read(self, connection: sa.Connection, upload_id: str) -> Upload:
        query = sa.select(uploads).where(U.project_id == self.project, U.id == upload_id)
        return _upload(only_row(connection, query, "upload", upload_id))

    def _pending(self, connection: sa.Connection, upload_id: str) -> Upload:
        upload = self._read(connection, upload_id)
        if upload.status != "pending":
            raise StoreError(f"upload {echo(upload_id)} is {upload.status}, expected pending: create another")
        return upload


def _upload(row: sa.Row[Any]) -> Upload:
    values = {name: row._mapping[name] for name in Upload.__slots__}
    if row.status == "pending" and row.expires <= now_micros():
        values["status"] = "expired"
    return Upload(**values)


def _join(parts: Sequence[Path], target: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with target.open("xb") as joined:
        for part in parts:
            with part.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    joined.write(chunk)
    return digest.hexdigest()
