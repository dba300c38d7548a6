"""Uploads in the store: what becomes of those that nobody completes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialoop.errors import StoreError
from dialoop.store.registry import Store


def begin(store: Store) -> str:
    made = store.uploads.create(filename="a", purpose="evals", mime_type="x", size=3, seconds=None)
    with store.uploads.staged() as folder:
        (folder / "part").write_bytes(b"abc")
        store.uploads.add(made.id, folder / "part")
    return made.id


def test_an_upload_that_expired_takes_nothing_and_is_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path) as store:
        monkeypatch.setattr("dialoop.store.uploads.LIFE_SECONDS", -1)
        made = store.uploads.create(filename="a", purpose="evals", mime_type="x", size=3, seconds=None)
        (store.uploads.root / made.id).mkdir(parents=True)
        assert store.uploads.get(made.id).status == "expired"
        with pytest.raises(StoreError, match="is expired"):
            store.uploads.finish(made.id, "completed")
        assert store.uploads.purge() == 1
        assert not (store.uploads.root / made.id).exists()


def test_what_a_killed_process_left_of_an_upload_is_cleared_away(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        kept = begin(store)
        (store.uploads.root / "upload_gone").mkdir()
        assert store.uploads.tidy() == 1
        assert [path.name for path in store.uploads.root.glob("upload_*")] == [kept]
