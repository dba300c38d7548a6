"""Stored completions: what was asked and answered with `store`, as OpenAI's wire has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from dialoop.chat.wire import conversation_from_openai
from dialoop.errors import UnknownRecordError
from dialoop.store.database import writing
from dialoop.store.pages import Page, Window, only_row, page_of
from dialoop.store.records import record_of
from dialoop.store.tables import stored_completions, stored_metadata
from dialoop.types import Conversation

C, M = stored_completions.c, stored_metadata.c
READ_ROWS = 500


@dataclass(frozen=True, slots=True)
class StoredCompletion:
    """messages, completion: as they were sent.  request: its other fields that were given.

    created: UTC microseconds.
    """

    id: str
    model: str
    created: int
    messages: Sequence[Mapping[str, Any]]
    completion: Mapping[str, Any]
    request: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def conversation(self) -> Conversation:
        """The history and the first answer, as a training example. Raises DataError for images."""
        answer = self.completion["choices"][0]["message"]
        row = {"messages": [*self.messages, answer], "metadata": {**self.metadata, "id": self.id}}
        given = {name: self.request[name] for name in ("tools", "functions") if self.request.get(name)}
        return conversation_from_openai({**row, **given})


@dataclass(frozen=True, slots=True)
class StoredCompletions:
    """The stored completions of one project."""

    engine: sa.Engine
    project: str

    def insert(self, connection: sa.Connection, kept: StoredCompletion) -> None:
        """Add one, within the transaction of a `Writer`."""
        row = {name: getattr(kept, name) for name in StoredCompletion.__slots__}
        connection.execute(sa.insert(stored_completions).values(project_id=self.project, **row))
        self._index(connection, kept.id, kept.metadata)

    def get(self, completion_id: str) -> StoredCompletion:
        """One. Raises UnknownRecordError."""
        return _stored(self._row(self.engine, completion_id))

    def list(
        self, window: Window, *, model: str | None = None, metadata: Mapping[str, str] = {}
    ) -> Page[StoredCompletion]:
        """Those of a model that have all of this metadata."""
        query = self._mine() if model is None else self._mine().where(C.model == model)
        for key, value in metadata.items():
            having = sa.select(M.completion_id).where(
                M.project_id == self.project, M.key == key, M.value == value
            )
            query = query.where(C.id.in_(having))
        return page_of(self.engine, query, C.id, window, _stored)

    def all(
        self, *, model: str | None = None, metadata: Mapping[str, str] = {}
    ) -> Iterator[StoredCompletion]:
        """As `list`, to the end, the oldest first."""
        after = None
        while True:
            page = self.list(Window(READ_ROWS, after, newest_first=False), model=model, metadata=metadata)
            yield from page.items
            if not page.has_more:
                return
            after = page.items[-1].id

    def update(self, completion_id: str, metadata: Mapping[str, str]) -> StoredCompletion:
        """Replace the metadata. Raises UnknownRecordError."""
        mine = sa.and_(C.project_id == self.project, C.id == completion_id)
        with writing(self.engine).begin() as connection:
            connection.execute(sa.update(stored_completions).where(mine).values(metadata=dict(metadata)))
            row = self._row(connection, completion_id)
            connection.execute(sa.delete(stored_metadata).where(M.completion_id == completion_id))
            self._index(connection, completion_id, metadata)
        return _stored(row)

    def delete(self, completion_id: str) -> None:
        """Delete one. Raises UnknownRecordError."""
        mine = sa.and_(C.project_id == self.project, C.id == completion_id)
        with writing(self.engine).begin() as connection:
            if connection.execute(sa.delete(stored_completions).where(mine)).rowcount == 0:
                raise UnknownRecordError("stored completion", completion_id)

    def purge(self, before: int) -> int:
        """Delete, of every project, what was made before that time; how many that was."""
        with writing(self.engine).begin() as connection:
            return connection.execute(sa.delete(stored_completions).where(C.created < before)).rowcount

    def _index(self, connection: sa.Connection, completion_id: str, metadata: Mapping[str, str]) -> None:
        rows = [
            {"completion_id": completion_id, "key": key, "value": value, "project_id": self.project}
            for key, value in metadata.items()
        ]
        if rows:
            connection.execute(sa.insert(stored_metadata), rows)

    def _row(self, source: sa.Engine | sa.Connection, completion_id: str) -> sa.Row[Any]:
        return only_row(source, self._mine().where(C.id == completion_id), "stored completion", completion_id)

    def _mine(self) -> sa.Select[Any]:
        return sa.select(stored_completions).where(C.project_id == self.project)


def _stored(row: sa.Row[Any]) -> StoredCompletion:
    return record_of(StoredCompletion, row)
