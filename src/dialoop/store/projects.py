"""Projects: whose data is whose."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.tables import projects


@dataclass(frozen=True, slots=True)
class Projects:
    """The projects of a store."""

    engine: sa.Engine

    def ensure(self, name: str) -> str:
        """The id of the project of that name, which is made where there is none."""
        with writing(self.engine).begin() as connection:
            found = connection.execute(sa.select(projects.c.id).where(projects.c.name == name)).scalar()
            if found is None:
                found = new_id("proj")
                connection.execute(sa.insert(projects).values(id=found, name=name, created=now_micros()))
        return str(found)

    def names(self) -> dict[str, str]:
        """Names by id."""
        with self.engine.connect() as connection:
            return {row.id: row.name for row in connection.execute(sa.select(projects))}
