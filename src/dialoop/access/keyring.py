"""Looks keys up; what it has found it believes for a second."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from dialoop.access.secret import PREFIX, matches, well_formed
from dialoop.store.identity import now_micros
from dialoop.store.keys import Key, KeyBook


class Keyring:
    """The keys of a store, for one event loop.

    holds: seconds for which a key that was revoked or made meanwhile may go unnoticed.
    size: prefixes that are remembered.
    """

    def __init__(
        self,
        book: KeyBook,
        *,
        holds: float = 1.0,
        size: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book, self._holds, self._size, self._clock = book, holds, size, clock
        self._seen: OrderedDict[str, tuple[float, tuple[Key, ...]]] = OrderedDict()
        self._locked: tuple[float, bool] | None = None

    async def find(self, secret: str) -> Key | None:
        """The key with this text, if it opens anything now."""
        if not well_formed(secret):
            return None
        found = await self._candidates(secret[:PREFIX])
        live = [key for key in found if matches(secret, key.digest) and key.live(now_micros())]
        return live[0] if live else None

    async def locked(self) -> bool:
        """Whether there is a key, so that all must bring one; once there was, it stays so."""
        now = self._clock()
        if self._locked is None or (not self._locked[1] and now - self._locked[0] >= self._holds):
            self._locked = now, await asyncio.to_thread(self._book.any)
        return self._locked[1]

    async def _candidates(self, prefix: str) -> tuple[Key, ...]:
        now, seen = self._clock(), self._seen.get(prefix)
        if seen is not None and now - seen[0] < self._holds:
            return seen[1]
        found = await asyncio.to_thread(self._book.candidates, prefix)
        self._seen[prefix] = now, found
        self._seen.move_to_end(prefix)
        while len(self._seen) > self._size:
            self._seen.popitem(last=False)
        return found
