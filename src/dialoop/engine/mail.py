"""What a core says, brought to those who wait for it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

from dialoop.engine.wire import Event, Said

Queue = asyncio.Queue[Event]


class Mail:
    """Brings the events of a core to those who wait for them in event loops."""

    def __init__(self) -> None:
        self._boxes: dict[int, tuple[asyncio.AbstractEventLoop, Queue]] = {}
        self._numbers = count()

    @contextmanager
    def box(self) -> Iterator[tuple[int, Queue]]:
        """A number for work, and where its events arrive while the context lasts."""
        number, events = next(self._numbers), Queue()
        self._boxes[number] = asyncio.get_running_loop(), events
        try:
            yield number, events
        finally:
            del self._boxes[number]

    def deliver(self, said: Said) -> None:
        """From any thread; each loop is woken once. A loop that has ended wants nothing more."""
        found: dict[asyncio.AbstractEventLoop, list[tuple[Queue, Event]]] = defaultdict(list)
        for number, event in said:
            if box := self._boxes.get(number):
                found[box[0]].append((box[1], event))
        for loop, events in found.items():
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_put, events)


def _put(events: Sequence[tuple[Queue, Event]]) -> None:
    for queue, event in events:
        queue.put_nowait(event)


async def next_of(events: Queue) -> Any:
    """The next event, raised where it is an error."""
    event = await events.get()
    if isinstance(event, Exception):
        raise event
    return event
