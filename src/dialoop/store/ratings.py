"""What users thought of answers, and of which arm of a trial."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.tables_ratings import ratings

T = ratings.c


@dataclass(frozen=True, slots=True)
class Rating:
    """name: of what is rated.  target: an answer's id.  created: UTC microseconds.

    trial, plan, arm, subject: of a trial's user, whose name is not kept.
    """

    id: str
    name: str
    value: float
    target: str | None
    comment: str | None
    trial: str | None
    plan: str | None
    arm: str | None
    subject: str | None
    created: int


@dataclass(frozen=True, slots=True)
class Ratings:
    """The ratings of one project."""

    engine: sa.Engine
    project: str

    def add(
        self,
        name: str,
        value: float,
        *,
        target: str | None = None,
        comment: str | None = None,
        trial: str | None = None,
        plan: str | None = None,
        arm: str | None = None,
        subject: str | None = None,
    ) -> Rating:
        """Record one; it is on the disk when this returns."""
        made = Rating(new_id("rate"), name, value, target, comment, trial, plan, arm, subject, now_micros())
        with writing(self.engine).begin() as connection:
            connection.execute(sa.insert(ratings), {"project_id": self.project, **asdict(made)})
        return made

    def of_trial(self, trial: str) -> tuple[Rating, ...]:
        """In the order in which they came."""
        query = sa.select(ratings).where(T.project_id == self.project, T.trial == trial)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(T.created, T.id)).all()
        return tuple(Rating(**{name: row._mapping[name] for name in Rating.__slots__}) for row in rows)
