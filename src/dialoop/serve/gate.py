"""How many requests of batches are under way: few while people wait for theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

HOLD_SECONDS = 0.1
"""Between two looks whether people still wait."""


class Gate:
    """Lets `rows` through at a time, one less for each request of a client, but always one: first come first.

    busy: how many of these there are.
    """

    def __init__(self, rows: int, busy: Callable[[], int]) -> None:
        self._rows, self._busy = rows, busy
        self._running = 0
        self._turn, self._left = asyncio.Lock(), asyncio.Event()

    @asynccontextmanager
    async def passed(self) -> AsyncGenerator[None, None]:
        """Wait for a place, and hold it."""
        async with self._turn:
            while self._running >= max(1, self._rows - self._busy()):
                self._left.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(HOLD_SECONDS):
                        await self._left.wait()
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._left.set()
