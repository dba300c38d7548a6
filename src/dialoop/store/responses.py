"""Kept responses: what each was asked, what it answered, and which one it goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from dialoop.errors import UnknownRecordError
from dialoop.store.database import writing
from dialoop.store.pages import only_row
from dialoop.store.records import record_of
from dialoop.store.tables_responses import responses

C = responses.c


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """input, response: as OpenAI's wire has them; the items of the input have ids.

    previous_id: of the response that it goes on from.  created: UTC microseconds.
    """

    id: str
    previous_id: str | None
    input: Sequence[Mapping[str, Any]]
    response: Mapping[str, Any]
    created: int

    @property
    def items(self) -> list[Mapping[str, Any]]:
        """What it adds to the dialogue."""
        return [*self.input, *self.response["output"]]


@dataclass(frozen=True, slots=True)
class Responses:
    """The kept responses of one project."""

    engine: sa.Engine
    project: str

    def insert(self, connection: sa.Connection, kept: KeptResponse) -> None:
        """Add one, within the transaction of a `Writer`."""
        connection.execute(sa.insert(responses).values(project_id=self.project, **asdict(kept)))

    def get(self, response_id: str) -> KeptResponse:
        """One. Raises UnknownRecordError."""
        return _kept(only_row(self.engine, self._mine().where(C.id == response_id), "response", response_id))

    def chain(self, response_id: str) -> tuple[KeptResponse, ...]:
        """One and all that it goes on from, the first of them first.

        Raises UnknownRecordError, also where one before it was deleted.
        """
        last = self._mine().add_columns(sa.literal(0).label("back")).where(C.id == response_id)
        found = last.cte("chain", recursive=True)
        before = self._mine().add_columns(found.c.back + 1).where(C.id == found.c.previous_id)
        found = found.union_all(before)
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(found).order_by(found.c.back.desc())).all()
        missing = rows[0].previous_id if rows else response_id
        if missing is not None:
            raise UnknownRecordError("response", missing)
        return tuple(map(_kept, rows))

    def delete(self, response_id: str) -> None:
        """Delete one; what goes on from it can be gone on from no more. Raises UnknownRecordError."""
        mine = sa.and_(C.project_id == self.project, C.id == response_id)
        with writing(self.engine).begin() as connection:
            if connection.execute(sa.delete(responses).where(mine)).rowcount == 0:
                raise UnknownRecordError("response", response_id)

    def purge(self, before: int) -> int:
        """Delete, of every project, what was made before that time; how many responses that was.

        What a younger one goes on from stays. before: UTC microseconds.
        """
        with self.engine.connect() as connection:
            if not connection.execute(sa.select(sa.exists().where(C.created < before))).scalar():
                return 0
        young = sa.select(C.previous_id.label("id")).where(C.created >= before, C.previous_id.is_not(None))
        used = young.cte("used", recursive=True)
        older = sa.select(C.previous_id).join(used, C.id == used.c.id).where(C.previous_id.is_not(None))
        used = used.union(older)
        gone = sa.delete(responses).where(C.created < before, C.id.not_in(sa.select(used.c.id)))
        with writing(self.engine).begin() as connection:
            return connection.execute(gone).rowcount

    def _mine(self) -> sa.Select[Any]:
        return sa.select(responses).where(C.project_id == self.project)


def _kept(row: sa.Row[Any]) -> KeptResponse:
    return record_of(KeptResponse, row)
