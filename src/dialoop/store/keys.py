"""API keys: only a hash of each is kept, and what it may do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa

from dialoop.errors import StoreError, echo
from dialoop.store.database import writing
from dialoop.store.identity import new_id, now_micros
from dialoop.store.tables_access import api_keys, key_usage

Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key may use; None = as much as it likes.

    rpm, tpm: requests and tokens a minute.  budget: tokens in each `period` of the UTC calendar.
    expires: UTC microseconds.
    """

    rpm: int | None = None
    tpm: int | None = None
    budget: int | None = None
    period: Period | None = None
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept. prefix: its first characters, to be shown.  digest: SHA-256 of the whole.

    Times are UTC microseconds.
    """

    id: str
    project_id: str
    name: str
    prefix: str
    digest: str
    scopes: tuple[str, ...]
    allowance: Allowance
    created: int
    revoked: int | None
    last_used: int | None

    def live(self, now: int) -> bool:
        """Whether it opens anything at `now`."""
        expires = self.allowance.expires
        return self.revoked is None and (expires is None or now < expires)


@dataclass(frozen=True, slots=True)
class Spent:
    """Requests and tokens of one key, on one UTC day (days since 1970), with one model."""

    key_id: str
    project_id: str
    day: int
    model: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one project."""

    engine: sa.Engine
    project: str

    def create(
        self, name: str, *, prefix: str, digest: str, scopes: Iterable[str], allowance: Allowance
    ) -> Key:
        """Record a key. Raises StoreError where a key of that name is in use."""
        key = Key(
            new_id("key"),
            self.project,
            name,
            prefix,
            digest,
            tuple(scopes),
            allowance,
            now_micros(),
            None,
            None,
        )
        row = {k: v for k, v in asdict(key).items() if k != "allowance"} | asdict(allowance)
        with writing(self.engine).begin() as connection:
            if connection.execute(self._mine().where(_named(name), api_keys.c.revoked.is_(None))).first():
                raise StoreError(
                    f"a key {echo(name)} is in use in this project: choose another name, or revoke it first"
                )
            connection.execute(sa.insert(api_keys).values(row | {"scopes": list(key.scopes)}))
        return key

    def list(self) -> tuple[Key, ...]:
        """All keys, the revoked ones too, the oldest first."""
        with self.engine.connect() as connection:
            rows = connection.execute(self._mine().order_by(api_keys.c.created, api_keys.c.id)).all()
        return tuple(map(_key, rows))

    def revoke(self, name: str) -> Key:
        """The key of this name or id opens nothing any more. Raises StoreError where there is none."""
        with writing(self.engine).begin() as connection:
            found = self._mine().where(sa.or_(_named(name), api_keys.c.id == name))
            row = connection.execute(found.where(api_keys.c.revoked.is_(None))).one_or_none()
            if row is None:
                raise StoreError(
                    f"no key {echo(name)} is in use in this project: see dialoop keys list, and --project"
                )
            mine = sa.update(api_keys).where(api_keys.c.id == row.id)
            connection.execute(mine.values(revoked=now_micros()))
        return _key(row)

    def spent(self, since: int) -> dict[str, int]:
        """Tokens by key id, from the UTC day `since` on."""
        with self.engine.connect() as connection:
            rows = connection.execute(_totals(since).where(key_usage.c.project_id == self.project)).all()
        return {row.key_id: int(row.tokens) for row in rows}

    def _mine(self) -> sa.Select[Any]:
        return sa.select(api_keys).where(api_keys.c.project_id == self.project)


@dataclass(frozen=True, slots=True)
class KeyBook:
    """All keys of a store, whatever their project: what a server looks keys up in, and writes use down to."""

    engine: sa.Engine

    def candidates(self, prefix: str) -> tuple[Key, ...]:
        """The keys that begin so; one, or none."""
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(api_keys).where(api_keys.c.prefix == prefix)).all()
        return tuple(map(_key, rows))

    def find(self, key_id: str) -> Key | None:
        """The key of this id."""
        with self.engine.connect() as connection:
            row = connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        return None if row is None else _key(row)

    def any(self) -> bool:
        """Whether a key was not revoked."""
        with self.engine.connect() as connection:
            found = sa.select(api_keys.c.id).where(api_keys.c.revoked.is_(None)).limit(1)
            return connection.execute(found).first() is not None

    def spent(self, key_id: str, since: int) -> int:
        """Tokens of a key, from the UTC day `since` on."""
        with self.engine.connect() as connection:
            row = connection.execute(_totals(since).where(key_usage.c.key_id == key_id)).one_or_none()
        return 0 if row is None else int(row.tokens)

    def write(self, spent: Iterable[Spent], used: Mapping[str, int]) -> None:
        """Add what was spent, and when keys were last used, in one transaction."""
        with writing(self.engine).begin() as connection:
            for each in spent:
                connection.execute(_added(connection.dialect.name, each))
            for key_id, when in used.items():
                mine = sa.update(api_keys).where(api_keys.c.id == key_id)
                connection.execute(mine.values(last_used=when))


def _added(dialect: str, spent: Spent) -> Any:
    """An insert that adds to the row that is there."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    statement = insert(key_usage).values(asdict(spent))
    added = {
        name: key_usage.c[name] + statement.excluded[name]
        for name in ("requests", "prompt_tokens", "completion_tokens")
    }
    return statement.on_conflict_do_update(index_elements=["key_id", "day", "model"], set_=added)


def _totals(since: int) -> sa.Select[Any]:
    tokens = sa.func.sum(key_usage.c.prompt_tokens + key_usage.c.completion_tokens).label("tokens")
    return sa.select(key_usage.c.key_id, tokens).where(key_usage.c.day >= since).group_by(key_usage.c.key_id)


def _named(name: str) -> sa.ColumnElement[bool]:
    return api_keys.c.name == name


def _key(row: Any) -> Key:
    allowance = Allowance(row.rpm, row.tpm, row.budget, row.period, row.expires)
    return Key(
        row.id, row.project_id, row.name, row.prefix, row.digest, tuple(row.scopes), allowance, row.created,
        row.revoked, row.last_used,
    )  # fmt: skip
