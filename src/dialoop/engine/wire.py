"""What passes between the front of an engine and its core; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from dialoop.chat.render import Rendered
from dialoop.types import Sampling

Event = object
"""A step's deltas of one request, all that other work finds, or, an Exception, why it ended."""
Said = Sequence[tuple[int, Event]]
"""What one step has to say, by the number of the work."""
Deliver = Callable[[Said], None]


@dataclass(frozen=True, slots=True)
class Answering:
    """A chat request in token ids."""

    model: str
    prompt: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Scoring:
    """Answers to one history; each row is the history with one of them."""

    model: str
    rows: tuple[Rendered, ...]


Work = Answering | Scoring


class Core(Protocol):
    """Does work and delivers its events from other threads. No call waits for a model."""

    def submit(self, number: int, work: Work) -> None:
        """Begin `work`; all that goes wrong with it is its last event."""
        ...

    def cancel(self, number: int) -> None:
        """Nobody waits for this work any more, whether or not it has ended: what it holds is free at once."""
        ...

    def close(self) -> None:
        """End; open work gets an error."""
        ...


class CoreOptions(TypedDict, total=False):
    """The options of `dialoop.engine.local.LocalCore`, which tells what they mean."""

    max_rows: int
    step_tokens: int
    cache_tokens: int | None
