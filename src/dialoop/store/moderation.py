"""What the moderation filter decided, for review."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.records import record_of
from dialoop.store.tables_moderation import moderation_decisions

T = moderation_decisions.c


@dataclass(frozen=True, slots=True)
class ModerationDecision:
    """One find and what was done about it.

    side: `input` or `output`.  place: where in it, such as `messages[1]`.  rule: the list's entry.
    content: the words found, None where they are not kept.  created: UTC microseconds.
    """

    id: str
    request_id: str
    model: str
    side: str
    place: str
    category: str
    action: str
    rule: str
    content: str | None
    created: int


@dataclass(frozen=True, slots=True)
class ModerationDecisions:
    """The decisions of one project."""

    engine: sa.Engine
    project: str

    def add(self, decisions: Iterable[dict[str, Any]]) -> None:
        """Record them in one transaction: all fields but id and created are given."""
        now = now_micros()
        rows = [
            {"id": new_id("modr"), "project_id": self.project, "created": now, **decision}
            for decision in decisions
        ]
        with writing(self.engine).begin() as connection:
            connection.execute(sa.insert(moderation_decisions), rows)

    def list(
        self, *, limit: int = 100, action: str | None = None, category: str | None = None
    ) -> tuple[ModerationDecision, ...]:
        """The newest first; of one action or category where given."""
        query = sa.select(moderation_decisions).where(T.project_id == self.project)
        for column, wanted in ((T.action, action), (T.category, category)):
            query = query if wanted is None else query.where(column == wanted)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(T.created.desc(), T.id.desc()).limit(limit)).all()
        return tuple(record_of(ModerationDecision, row) for row in rows)

    def purge(self, before: int) -> int:
        """Delete, of every project, what was decided before that time; how many decisions that was."""
        with writing(self.engine).begin() as connection:
            return connection.execute(sa.delete(moderation_decisions).where(T.created < before)).rowcount
