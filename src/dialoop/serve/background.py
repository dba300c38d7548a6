"""Work that goes on beside the requests for as long as the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from dialoop.serve.errors import http_error

Work = Callable[[], Coroutine[Any, Any, None]]
RESTART_SECONDS = 5.0
T = TypeVar("T")


@asynccontextmanager
async def working(works: Iterable[Work]) -> AsyncGenerator[None, None]:
    """Run all of `works`; at the end they are cancelled and waited for. One that fails is begun again."""
    tasks = [asyncio.create_task(_kept_going(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _kept_going(work: Work) -> None:
    while True:
        try:
            return await work()
        except Exception as error:
            http_error(error)  # logs it
            await asyncio.sleep(RESTART_SECONDS)


class SideBySide(Generic[T]):
    """Things that are worked on at the same time, each by its name and in a task of its own.

    work: what is done about one; what it raises is logged.  most: so many at a time.
    again: called where there may be more to begin: a place has become free, or a task was cancelled.
    """

    def __init__(self, work: Callable[[T], Coroutine[Any, Any, None]], most: int, again: Callable[[], None]):
        self._work, self._most, self._again = work, most, again
        self._begun: dict[str, tuple[T, asyncio.Task[None]]] = {}

    def __iter__(self) -> Iterator[str]:
        """The names of those that are worked on."""
        return iter(tuple(self._begun))

    def begun(self, name: str) -> T | None:
        """A thing that is worked on, as it was when it was begun."""
        found = self._begun.get(name)
        return None if found is None else found[0]

    def begin(self, name: str, thing: T) -> None:
        """Work on it, unless that is being done, or there is no place."""
        if name not in self._begun and len(self._begun) < self._most:
            task = asyncio.create_task(self._work(thing))
            self._begun[name] = thing, task
            task.add_done_callback(lambda _: self._stopped(name))

    def cancel(self, name: str) -> None:
        """End the work on one."""
        self._begun[name][1].cancel()

    async def end(self) -> None:
        """End all of them."""
        tasks = [task for _, task in self._begun.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stopped(self, name: str) -> None:
        full = len(self._begun) == self._most
        _, task = self._begun.pop(name)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            http_error(error)  # logs it
        if full or task.cancelled():
            self._again()
