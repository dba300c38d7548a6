"""Files in the store: whole or not at all, and gone when they should be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dialoop.errors import StoreError, UnknownRecordError
from dialoop.store.files import File
from dialoop.store.identity import new_id
from dialoop.store.pages import Window
from dialoop.store.registry import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def put(store: Store, data: bytes = b"x", seconds: int | None = None, file_id: str | None = None) -> File:
    with store.files.staged() as folder:
        (folder / "file").write_bytes(data)
        return store.files.adopt(
            folder / "file", filename="a", purpose="evals", seconds=seconds, file_id=file_id
        )


def test_a_file_that_expired_is_gone_at_once_and_its_bytes_at_the_next_purge(store: Store) -> None:
    kept, gone = put(store), put(store, seconds=0)
    with pytest.raises(UnknownRecordError):
        store.files.get(gone.id)
    assert store.files.list(Window()).items == (kept,)
    assert store.files.purge() == 1
    assert [path.name for path in store.files.root.glob("file-*")] == [kept.id]


def test_a_link_outlives_its_file(store: Store) -> None:
    file = put(store, b"bytes")
    target = store.home / "jobs" / "1" / "train.jsonl"
    assert store.files.link(file.id, target) == file
    store.files.delete(file.id)
    assert target.read_bytes() == b"bytes"
    with pytest.raises(UnknownRecordError):
        store.files.link(file.id, target.with_name("again"))


def test_a_file_of_an_id_given_before_is_taken_once(store: Store) -> None:
    file_id = new_id("file")
    first, again = put(store, b"one", file_id=file_id), put(store, b"two", file_id=file_id)
    assert first == again
    assert store.files.path(file_id).read_bytes() == b"one"


def test_what_a_killed_process_left_is_cleared_away(store: Store) -> None:
    kept = put(store)
    (store.files.root / new_id("file")).write_bytes(b"no row")
    (store.files.root / ".staging" / "part-1").mkdir()
    assert store.files.tidy() == 2
    assert [path.name for path in store.files.root.glob("file-*")] == [kept.id]


def test_a_row_that_cannot_be_written_leaves_no_file(store: Store) -> None:
    stranger = store.of("proj-none")
    with pytest.raises(Exception, match="FOREIGN KEY"):
        put(stranger)
    assert list(store.files.root.glob("file-*")) == []


def test_a_disk_that_refuses_is_a_store_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing was kept"):
        store.files.adopt(tmp_path / "nowhere", filename="a", purpose="evals")
