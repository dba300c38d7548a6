"""Pages of a list: a window over rows in the order of their making."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` rows, those beyond the row with the id `after`."""

    limit: int = 20
    after: str | None = None
    newest_first: bool = True


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """The rows in a window. has_more: there are some beyond it."""

    items: tuple[T, ...]
    has_more: bool


def page_of(
    engine: sa.Engine,
    query: sa.Select[Any],
    id_column: sa.Column[Any],
    window: Window,
    record: Callable[[sa.Row[Any]], T],
) -> Page[T]:
    """The window over `query`, each row as `record` reads it.

    Ids grow with time: their order is that of making, and the id of a row that was deleted meanwhile still
    marks a place.
    """
    if window.after is not None:
        query = query.where(id_column < window.after if window.newest_first else id_column > window.after)
    order = id_column.desc() if window.newest_first else id_column.asc()
    with engine.connect() as connection:
        rows = connection.execute(query.order_by(order).limit(window.limit + 1)).all()
    return Page(tuple(map(record, rows[: window.limit])), len(rows) > window.limit)
