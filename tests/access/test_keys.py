"""Keys in a store: how they are kept, found, revoked and charged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dialoop.access.calendar import day_of, period_end, period_start, shown
from dialoop.access.keyring import Keyring
from dialoop.access.ledger import Ledger
from dialoop.access.scopes import SCOPES, covers, read_scopes
from dialoop.access.secret import PREFIX, digest_of, new_secret
from dialoop.errors import ConfigError, StoreError
from dialoop.store.database import writing
from dialoop.store.identity import now_micros
from dialoop.store.keys import Allowance, Key
from dialoop.store.registry import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def make_key(
    store: Store, name: str = "desk", scopes: str = "inference", **allowed: object
) -> tuple[Key, str]:
    """A key in the store, and its text."""
    secret = new_secret()
    key = store.keys.create(
        name, prefix=secret[:PREFIX], digest=digest_of(secret), scopes=read_scopes(scopes),
        allowance=Allowance(**allowed),  # type: ignore[arg-type]
    )  # fmt: skip
    return key, secret


class Clock:
    """Seconds that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_a_hash_and_the_beginning_of_a_key_are_kept(store: Store, tmp_path: Path) -> None:
    key, secret = make_key(store)
    store.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert secret.encode() not in kept
    assert secret[PREFIX + 1 :].encode() not in kept
    assert (key.prefix, len(key.digest)) == (secret[:11], 64)


async def test_a_revoked_key_is_noticed_within_the_second(store: Store) -> None:
    key, secret = make_key(store)
    clock = Clock()
    ring = Keyring(store.key_book, clock=clock)
    assert await ring.find(secret) == key
    store.keys.revoke("desk")
    clock.now = 0.9
    assert await ring.find(secret) == key
    clock.now = 1.0
    assert await ring.find(secret) is None


async def test_a_key_opens_nothing_after_its_end(store: Store) -> None:
    _, past = make_key(store, expires=now_micros())
    key, coming = make_key(store, "other", expires=now_micros() + 10**9)
    ring = Keyring(store.key_book)
    assert (await ring.find(past), await ring.find(coming)) == (None, key)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[:-1] + ("a" if s[-1] != "a" else "b"),
        lambda s: s[:-1],
        lambda s: s + "a",
        lambda s: s[:PREFIX],
        lambda s: "",
        lambda s: "ключ",
    ],
)
async def test_what_is_not_the_whole_key_finds_nothing(store: Store, change: object) -> None:
    _, secret = make_key(store)
    assert callable(change)
    assert await Keyring(store.key_book).find(change(secret)) is None


async def test_guesses_are_remembered_up_to_a_bound(store: Store) -> None:
    _, secret = make_key(store)
    ring = Keyring(store.key_book, size=8)
    for _ in range(100):
        assert await ring.find(new_secret()) is None
    assert await ring.find(secret) is not None
    assert len(ring._seen) == 8


async def test_the_first_key_locks_and_the_last_to_go_does_not_open(store: Store) -> None:
    clock = Clock()
    ring = Keyring(store.key_book, clock=clock)
    assert not await ring.locked()
    make_key(store)
    clock.now = 1.0
    assert await ring.locked()
    store.keys.revoke("desk")
    clock.now = 5.0
    assert await ring.locked()


def test_names_are_unique_among_the_live_keys_of_a_project(store: Store) -> None:
    make_key(store)
    with pytest.raises(StoreError, match=r"'desk' is in use.*revoke"):
        make_key(store)
    make_key(store.of(store.projects.ensure("other")))
    store.keys.revoke("desk")
    again, _ = make_key(store)
    assert [key.revoked is None for key in store.keys.list()] == [False, True]
    assert store.keys.revoke(again.id).name == "desk"
    with pytest.raises(StoreError, match="no key 'desk'"):
        store.keys.revoke("desk")


def test_a_project_is_made_once(store: Store) -> None:
    other = store.projects.ensure("other")
    assert store.projects.ensure("other") == other
    assert store.projects.names() == {store.project: "default", other: "other"}


async def test_use_is_written_in_batches_and_read_back_by_the_next_server(store: Store) -> None:
    key, _ = make_key(store, budget=1000, period="month")
    ledger = Ledger(store.key_book)
    account = await ledger.account(key)
    for model in ("a", "a", "b"):
        account.settle(account.reserve(10, None, 100), model, 10, 5)
    assert store.keys.spent(0) == {}
    await ledger.write()
    account.settle(account.reserve(10, None, 100), "b", 10, 5)
    await ledger.write()
    await ledger.write()
    assert store.keys.spent(0) == {key.id: 60}
    assert store.keys.list()[0].last_used is not None
    with store.engine.connect() as connection:
        rows = connection.execute(sa.text("select model, requests, prompt_tokens from key_usage order by 1"))
        assert [tuple(row) for row in rows] == [("a", 2, 20), ("b", 2, 20)]
    again = await Ledger(store.key_book).account_of(key.id)
    assert again is not None
    assert again.left == account.left == 1000 - 60
    assert await ledger.account_of("key-none") is None
    store.keys.revoke(key.id)
    assert await ledger.account_of(key.id) is None


async def test_two_servers_on_one_store_know_of_each_others_use(store: Store) -> None:
    key, _ = make_key(store, budget=1000, period="day")
    ledgers = [Ledger(store.key_book) for _ in range(2)]
    accounts = [await ledger.account(key) for ledger in ledgers]
    for ledger, account in zip(ledgers, accounts, strict=True):
        account.settle(account.reserve(10, 90, 0), "m", 10, 90)
        await ledger.write()
    assert [account.left for account in accounts] == [900, 800]


async def test_use_that_cannot_be_written_is_kept_and_written_later(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = make_key(store)
    ledger = Ledger(store.key_book)
    account = await ledger.account(key)
    account.settle(account.reserve(10, 5, 0), "m", 10, 5)
    _rename(store, "key_usage", "away")
    with caplog.at_level(logging.ERROR):
        await ledger.write()
        await ledger.write()
    assert len(caplog.records) == 1
    account.settle(account.reserve(10, 5, 0), "m", 10, 5)
    _rename(store, "away", "key_usage")
    await ledger.write()
    assert store.keys.spent(0) == {key.id: 30}


def _rename(store: Store, table: str, name: str) -> None:
    with writing(store.engine).begin() as connection:
        connection.execute(sa.text(f"alter table {table} rename to {name}"))


def test_admin_covers_all_and_no_other_scope_does() -> None:
    for held in SCOPES:
        for needed in SCOPES:
            assert covers([held], [needed]) == (held in (needed, "admin"))
    assert covers(["data", "inference"], ["inference", "data"])
    assert not covers(["data"], ["inference", "data"])
    assert covers([], [])


@pytest.mark.parametrize(("text", "match"), [("infer", "did you mean 'inference'"), (" , ", "names none")])
def test_unknown_scopes_are_refused(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        read_scopes(text)


@pytest.mark.parametrize(
    ("date", "start", "end"),
    [("2026-11-25", "2026-11-01", "2026-12-01"), ("2026-12-31", "2026-12-01", "2027-01-01"),
     ("2028-02-29", "2028-02-01", "2028-03-01")],
)  # fmt: skip
def test_months_are_those_of_the_calendar(date: str, start: str, end: str) -> None:
    from datetime import UTC, datetime

    day = day_of(int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() * 1e6))
    assert shown(period_start("month", day)) == f"{start} 00:00 UTC"
    assert shown(period_end("month", day)) == f"{end} 00:00 UTC"
    assert (period_start("day", day), period_end("day", day)) == (day, day + 1)
