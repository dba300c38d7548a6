"""Conversations from tables with one message a row, such as the log of a service desk."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from itertools import groupby
from typing import Any

from dialoop.data.text_io import Reject
from dialoop.data.turns import role_of, text_of
from dialoop.errors import DataError
from dialoop.types import Conversation, Message, Role

_TURN = tuple[str, int, str, Role, str, str]
_CREATE = "CREATE TABLE turn (conversation TEXT, row INTEGER, place TEXT, role TEXT, content TEXT, rest TEXT)"
_INSERT = "INSERT INTO turn VALUES (?, ?, ?, ?, ?, ?)"
_BY_CONVERSATION = """
    SELECT turn.* FROM turn
    JOIN (SELECT conversation, min(row) AS first FROM turn GROUP BY conversation) AS start
    ON turn.conversation = start.conversation ORDER BY start.first, turn.row
"""


def grouped(
    rows: Iterator[tuple[int, Any]], columns: Mapping[str, str], reject: Reject
) -> Iterator[Conversation]:
    """Conversations in the order of their first rows, turns by order or time where all have one.

    columns: role, content, and conversation or order.

    Rows of different conversations may be interleaved: they are sorted in a temporary file, not in memory.
    """
    with closing(sqlite3.connect("")) as database:
        database.execute(_CREATE)
        database.executemany(_INSERT, _turns(rows, columns, reject))
        for _, turns in groupby(database.execute(_BY_CONVERSATION), key=lambda turn: turn[0]):
            yield _conversation(list(turns), "conversation" in columns)


def _turns(rows: Iterator[tuple[int, Any]], columns: Mapping[str, str], reject: Reject) -> Iterator[_TURN]:
    numbered = _Numbered()
    for number, row in rows:
        try:
            yield _turn(number, row, columns, numbered)
        except DataError as error:
            reject(number, str(error))


class _Numbered:
    """Counts conversations where only the turns are numbered: one begins where the number falls."""

    def __init__(self) -> None:
        self._count = 0
        self._last: float | None = None

    def conversation(self, place: str) -> str:
        now = _moment(place)
        if now is None:
            raise DataError("the turn has no number")
        if self._last is not None and now <= self._last:
            self._count += 1
        self._last = now
        return str(self._count)


def _turn(number: int, row: object, columns: Mapping[str, str], numbered: _Numbered) -> _TURN:
    if not isinstance(row, dict):
        raise DataError("the row is no object with columns")
    place = str(row.get(columns.get("order") or columns.get("time") or "") or "")
    if "conversation" not in columns:
        conversation = numbered.conversation(place)
    elif (named := row.get(columns["conversation"])) in (None, ""):
        raise DataError("the row names no conversation")
    else:
        conversation = str(named)
    role = role_of(row.get(columns["role"]))
    content = text_of(row.get(columns["content"]))
    if not content.strip():
        raise DataError("the message is empty")
    used = columns.values()
    rest = {key: value for key, value in row.items() if key not in used and value not in (None, "")}
    return conversation, number, place, role, content, json.dumps(rest, ensure_ascii=False)


def _conversation(turns: list[_TURN], named: bool) -> Conversation:
    moments = [_moment(turn[2]) for turn in turns]
    if all(moment is not None for moment in moments):
        order = sorted(range(len(turns)), key=lambda index: (moments[index], index))
        turns = [turns[index] for index in order]
    metadata = _shared([json.loads(turn[5]) for turn in turns])
    if named:
        metadata = {"id": turns[0][0], **metadata}
    return Conversation(tuple(Message(turn[3], turn[4]) for turn in turns), metadata=metadata)


def _shared(rests: list[dict[str, Any]]) -> dict[str, Any]:
    """What all rows of a conversation say alike; what differs belongs to single messages."""
    first, *others = rests
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _moment(place: str) -> float | None:
    """A turn number, or a time in a usual notation, as a number that sorts."""
    text = place.strip()
    for old, new in (("年", "-"), ("月", "-"), ("日", " "), ("/", "-")):
        text = text.replace(old, new)
    try:
        return float(text)
    except ValueError:
        pass
    for notation in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%H:%M:%S", "%H:%M"):
        try:
            moment = datetime.strptime(" ".join(text.split()), notation)
            return (moment - datetime(1900, 1, 1)).total_seconds()
        except ValueError:
            continue
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
