"""Opening a store: made, migrated, watched over by its sentinel."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from dialoop.errors import StoreError
from dialoop.store.database import DATABASE, SENTINEL, make_engine, migrate, schema_differences
from dialoop.store.registry import Store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "home") as store:
        store.runs.start("tune", {}, {})
    return tmp_path / "home"


def test_an_empty_database_is_migrated_to_the_tables_in_code(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "new.sqlite3")
    revision = migrate(engine)
    assert (revision, schema_differences(engine)) == (migrate(engine), [])
    engine.dispose()


def test_every_table_but_projects_names_its_project(home: Path) -> None:
    with closing(sqlite3.connect(home / DATABASE)) as database:
        tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        columns = {t: {row[1] for row in database.execute(f"pragma table_info({t})")} for t in tables}
    ours = set(tables) - {"alembic_version", "projects"}
    assert ours >= {
        "runs",
        "model_versions",
        "reports",
        "files",
        "moderation_decisions",
        "api_keys",
    }
    assert all("project_id" in columns[table] for table in ours)


def test_the_database_is_durable_and_checks_its_references(home: Path) -> None:
    with Store.open(home) as store, store.engine.connect() as connection:
        values = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert values == ["wal", 2, 1]


def test_what_was_written_is_there_when_the_store_is_opened_again(home: Path) -> None:
    with Store.open(home) as store:
        assert [run.kind for run in store.runs.list()] == ["tune"]


@pytest.mark.parametrize(("damage", "reason"), [
    (lambda path: path.write_bytes(b""), "is empty"),
    (lambda path: path.unlink(), "is missing"),
    (lambda path: path.write_bytes(b"\x00" * 5000), "damaged"),
    (lambda path: path.write_bytes(path.read_bytes()[:5000]), "malformed"),
    (lambda path: path.write_bytes(path.read_bytes()[:4096].ljust(path.stat().st_size, b"\xff")),
     "damaged|malformed"),
])  # fmt: skip
def test_a_lost_or_damaged_database_is_refused_with_file_and_reason(
    home: Path, damage: object, reason: str
) -> None:
    assert callable(damage)
    damage(home / DATABASE)
    with pytest.raises(StoreError, match=rf"{DATABASE}.*({reason}).*restore"):
        Store.open(home)


def test_a_refused_database_is_left_as_it_was(home: Path) -> None:
    (home / DATABASE).write_bytes(b"")
    with pytest.raises(StoreError):
        Store.open(home)
    assert (home / DATABASE).read_bytes() == b""


def test_moving_the_sentinel_away_begins_an_empty_store_as_the_message_says(home: Path) -> None:
    (home / DATABASE).unlink()
    (home / SENTINEL).unlink()
    with Store.open(home) as store:
        assert store.runs.list() == ()


def test_a_sentinel_that_was_lost_is_made_again_from_the_database(home: Path) -> None:
    before = json.loads((home / SENTINEL).read_text())
    (home / SENTINEL).unlink()
    with Store.open(home) as store:
        assert len(store.runs.list()) == 1
    assert json.loads((home / SENTINEL).read_text()) == before


def test_the_database_of_another_store_is_refused(home: Path, tmp_path: Path) -> None:
    Store.open(tmp_path / "other").close()
    (tmp_path / "other" / DATABASE).replace(home / DATABASE)
    with pytest.raises(StoreError, match="same backup"):
        Store.open(home)


@pytest.mark.parametrize("text", ["", "[]", '{"instance": 3}'])
def test_a_damaged_sentinel_is_refused(home: Path, text: str) -> None:
    (home / SENTINEL).write_text(text)
    with pytest.raises(StoreError, match=f"{SENTINEL}.*delete it"):
        Store.open(home)


def test_a_schema_from_the_future_is_refused(home: Path) -> None:
    engine = make_engine(home / DATABASE)
    with engine.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match=r"'9999'.*upgrade dialoop"):
        Store.open(home)


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--home"):
        Store.open(tmp_path / "file" / "home")


def test_many_that_open_a_new_home_at_once_share_one_store(tmp_path: Path) -> None:
    def project(_: int) -> str:
        with Store.open(tmp_path / "home") as store:
            store.runs.start("tune", {}, {})
            return store.project

    with ThreadPoolExecutor(8) as pool:
        projects = set(pool.map(project, range(8)))
    with Store.open(tmp_path / "home") as store:
        assert (len(projects), len(store.runs.list())) == (1, 8)


def test_opening_a_store_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dialoop.store.registry import Store; "
        f"Store.open(Path({str(tmp_path)!r})).close(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
