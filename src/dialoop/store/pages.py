"""Rows of queries: the only one, or a page: a window over them in the order of their making."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from dialoop.errors import UnknownRecordError

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


def only_row(source: sa.Engine | sa.Connection, query: sa.Select[Any], noun: str, asked: str) -> sa.Row[Any]:
    """The row that `query` finds; `noun` and `asked` name it in the error. Raises UnknownRecordError."""
    if isinstance(source, sa.Engine):
        with source.connect() as connection:
            return only_row(connection, query, noun, asked)
    row = source.execute(query).one_or_none()
    if row is None:
        raise UnknownRecordError(noun, asked)
    return row


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
