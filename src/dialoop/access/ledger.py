"""The accounts of all keys, and the writing down of what they use: in batches, beside the answers."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from functools import partial

import sqlalchemy as sa

from dialoop.access.account import Account
from dialoop.access.calendar import day_of, period_start
from dialoop.store.identity import now_micros
from dialoop.store.keys import Key, KeyBook, Spent

log = logging.getLogger("dialoop.access")

EVERY = 1.0
"""Seconds between two writes: so much use may be forgotten where the process is killed."""


class Ledger:
    """Belongs to the server's event loop."""

    def __init__(self, book: KeyBook) -> None:
        self._book = book
        self._accounts: dict[str, Account] = {}
        self._pending: dict[tuple[str, int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self._used: dict[str, int] = {}
        self._failing = False

    async def account(self, key: Key) -> Account:
        """The account of `key`, which counts as used now."""
        self._used[key.id] = now_micros()
        if key.id not in self._accounts:
            written = 0
            if key.allowance.budget is not None:
                since = period_start(key.allowance.period or "day", day_of(now_micros()))
                written = await asyncio.to_thread(self._book.spent, key.id, since)
            self._accounts.setdefault(key.id, Account(key, written, partial(self._settle, key)))
        return self._accounts[key.id]

    async def account_of(self, key_id: str) -> Account | None:
        """For work that goes on after its request; None where the key with this id opens nothing any more."""
        key = await asyncio.to_thread(self._book.find, key_id)
        return await self.account(key) if key and key.live(now_micros()) else None

    async def write_regularly(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.write()

    async def write(self) -> None:
        """Write down what was used since the last time; what cannot be written is tried again."""
        pending, self._pending = self._pending, defaultdict(lambda: [0, 0, 0])
        used, self._used = self._used, {}
        if not (pending or used):
            return
        touched = {key_id for key_id, _, _ in pending}
        counted = [a for a in map(self._accounts.__getitem__, touched) if a.key.allowance.budget is not None]
        before = [(account, account.since, account.unwritten()) for account in counted]
        try:
            totals = await asyncio.to_thread(self._store, pending, used, before)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self._put_back(pending, used, error)
            return
        self._failing = False
        for (account, since, unwritten), total in zip(before, totals, strict=True):
            if account.since == since:
                account.wrote(total, unwritten)

    def _settle(self, key: Key, model: str, prompt: int, completion: int) -> None:
        counts = self._pending[key.id, day_of(now_micros()), model]
        for i, amount in enumerate((1, prompt, completion)):
            counts[i] += amount

    def _store(
        self,
        pending: dict[tuple[str, int, str], list[int]],
        used: dict[str, int],
        before: list[tuple[Account, int, int]],
    ) -> list[int]:
        projects = {key_id: self._accounts[key_id].key.project_id for key_id, _, _ in pending}
        rows = [
            Spent(key_id, projects[key_id], day, model, *counts)
            for (key_id, day, model), counts in pending.items()
        ]
        self._book.write(rows, used)
        return [self._book.spent(account.key.id, since) for account, since, _ in before]

    def _put_back(
        self, pending: dict[tuple[str, int, str], list[int]], used: dict[str, int], error: Exception
    ) -> None:
        for place, counts in pending.items():
            for i, amount in enumerate(counts):
                self._pending[place][i] += amount
        self._used = used | self._used
        reason = getattr(error, "orig", error)
        if not self._failing:
            log.error("what keys have used cannot be written down, and is kept until it can: %s", reason)
        self._failing = True
