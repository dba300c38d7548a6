"""Answers kept for a second asking with the same Idempotency-Key."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from dialoop.store.database import writing
from dialoop.store.identity import now_micros
from dialoop.store.tables_access import kept_replies

DAY = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class KeptReply:
    """fingerprint: of the request.  body: None where it was streamed or too long to be kept."""

    key: str
    fingerprint: str
    status: int
    media_type: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Replies:
    """The kept answers of one project; each for a day."""

    engine: sa.Engine
    project: str

    def find(self, key: str) -> KeptReply | None:
        """The answer that was given to this key within the last day."""
        mine = sa.and_(kept_replies.c.project_id == self.project, kept_replies.c.key == key)
        query = sa.select(kept_replies).where(mine, kept_replies.c.created > now_micros() - DAY)
        with self.engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return KeptReply(row.key, row.fingerprint, row.status, row.media_type, row.body)

    def keep(self, reply: KeptReply) -> None:
        """Keep an answer, in place of an older one; those of other days go."""
        now = now_micros()
        mine = sa.and_(kept_replies.c.project_id == self.project, kept_replies.c.key == reply.key)
        with writing(self.engine).begin() as connection:
            connection.execute(
                sa.delete(kept_replies).where(sa.or_(mine, kept_replies.c.created <= now - DAY))
            )
            row = {"project_id": self.project, "created": now, **asdict(reply)}
            connection.execute(sa.insert(kept_replies).values(row))
