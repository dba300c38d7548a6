"""The writer: together where it can, alone where it must, and nothing lost."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from dialoop.errors import OverloadedError
from dialoop.store.database import make_engine
from dialoop.store.writer import MOST_WAITING, Write, Writer

WAIT = 60.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = make_engine(tmp_path / "x.sqlite3")
    with engine.begin() as connection:
        connection.exec_driver_sql("create table t (n integer primary key)")
    yield engine
    engine.dispose()


def adding(number: int) -> Write:
    return lambda connection: connection.exec_driver_sql("insert into t values (?)", (number,)) and None


def numbers(engine: sa.Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("select n from t order by n").scalars())


def test_what_was_handed_over_is_there_once_it_settled(engine: sa.Engine) -> None:
    writer = Writer(engine)
    for number in range(500):
        writer.put(adding(number))
    writer.settle()
    assert numbers(engine) == list(range(500))
    writer.put(adding(500))
    writer.close()
    assert numbers(engine)[-1] == 500


def test_a_write_that_can_never_be_made_takes_no_other_along(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(engine)
    for number in (1, 2, 2, 3):
        writer.put(adding(number))
    writer.close()
    assert numbers(engine) == [1, 2, 3]
    assert "IntegrityError" in caplog.text


def test_a_database_that_is_locked_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dialoop.store.writer.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("dialoop.store.database.BUSY_SECONDS", 0)
    engine, refused = make_engine(tmp_path / "x.sqlite3"), threading.Event()
    monkeypatch.setattr("dialoop.store.writer.log.error", lambda *said: refused.set())
    with closing(sqlite3.connect(tmp_path / "x.sqlite3", isolation_level=None)) as locking:
        locking.execute("create table t (n integer primary key)")
        locking.execute("begin immediate")
        writer = Writer(engine)
        writer.put(adding(1))
        assert refused.wait(WAIT)
        locking.execute("rollback")
    writer.close()
    assert numbers(engine) == [1]
    engine.dispose()


def test_more_is_not_begun_while_too_much_waits(engine: sa.Engine) -> None:
    writer, begun, opened = Writer(engine), threading.Event(), threading.Event()

    def waiting(connection: sa.Connection) -> None:
        begun.set()
        opened.wait(WAIT)

    writer.put(waiting)
    assert begun.wait(WAIT)
    for number in range(MOST_WAITING + 1):
        writer.put(adding(number))
    with pytest.raises(OverloadedError):
        writer.check_room()
    opened.set()
    writer.settle()
    writer.check_room()
    writer.close()
    assert len(numbers(engine)) == MOST_WAITING + 1
