"""Deltas of quick steps, told together: each frame to the front wakes it beside the threads that compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from dialoop.engine.wire import Deliver, Event, Said
from dialoop.types import Delta

LONGEST = 0.016
"""Seconds that a delta may wait for others: a frame of a screen."""


class Gatherer:
    """A `Deliver` before another one, for steps that take less than half of LONGEST.

    What begins or ends an answer, and all that is not of one, is passed on at once, after what waits. What
    waits is of answers that go on, and so there is a next step to bring it along. Neighbouring deltas of one
    answer become one.  clock: in seconds.
    """

    def __init__(self, deliver: Deliver, clock: Callable[[], float] = time.monotonic) -> None:
        self._deliver = deliver
        self._clock = clock
        self._lock = Lock()
        self._waiting: dict[int, list[Delta]] = {}
        self._going_on: set[int] = set()
        self._told = self._heard = -LONGEST

    def __call__(self, said: Said) -> None:
        with self._lock:
            now = self._clock()
            step, self._heard = now - self._heard, now
            may_wait = now + step - self._told < LONGEST and all(self._may_wait(*each) for each in said)
            others = self._keep(said)
            if not may_wait:
                self._tell(others, now)

    def _may_wait(self, number: int, event: Event) -> bool:
        deltas = _deltas(event)
        going_on = number in self._going_on and bool(deltas)
        return going_on and all(delta.finish_reason is None for delta in deltas)

    def _keep(self, said: Said) -> Said:
        """Let the deltas wait; the events that are none."""
        others: list[tuple[int, Event]] = []
        for number, event in said:
            if deltas := _deltas(event):
                self._waiting[number] = joined((*self._waiting.get(number, ()), *deltas))
            else:
                others.append((number, event))
        return others

    def _tell(self, others: Said, now: float) -> None:
        """What waits, and then the others."""
        waiting, self._waiting = self._waiting, {}
        self._going_on, self._told = set(waiting), now
        self._deliver([*waiting.items(), *others])


def joined(deltas: Iterable[Delta]) -> list[Delta]:
    """As the deltas, neighbours of one answer together; deltas as the core makes them, of text and tokens."""
    found: list[Delta] = []
    for delta in deltas:
        if found and found[-1].index == delta.index:
            before = found.pop()
            delta = Delta(
                delta.index,
                before.text + delta.text,
                delta.finish_reason,
                delta.usage,
                before.logprobs + delta.logprobs,
                token_ids=before.token_ids + delta.token_ids,
            )
        found.append(delta)
    return found


def _deltas(event: Event) -> Sequence[Delta]:
    """Of an event of an answer's step; () of all other events."""
    if isinstance(event, list) and event and isinstance(event[0], Delta):
        return event
    return ()
