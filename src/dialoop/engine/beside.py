"""Work beside the answers: one forward at a time, so that no answer waits for the whole of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from dialoop.chat.render import Rendered
from dialoop.engine.classify import HeadRunning, Scores, Tags
from dialoop.engine.embed import EncoderRunning, Vectors
from dialoop.engine.reader import Wanted
from dialoop.engine.running import Running
from dialoop.engine.wire import Event, PromptRead, Ranked
from dialoop.types import Scored

T = TypeVar("T")


class Embeds(Protocol):
    """A model that turns texts into vectors."""

    def embed(
        self, texts: Sequence[Sequence[int]], owner: str, wanted: Wanted, /
    ) -> Generator[None, None, Vectors]: ...


@dataclass(eq=False)
class SideJob(ABC, Generic[T]):
    """`begin` gives the work, which yields after each forward; `event` says what it returned.

    number: under which that is delivered.  owner: the adapter that it goes through.
    """

    number: int
    owner: str

    @abstractmethod
    def begin(self, running: Any, /) -> Generator[None, None, T]:
        """The work on a model."""

    def event(self, value: T) -> Event:
        """The value itself, unless its kind must be told from other events of the number."""
        return value


@dataclass(eq=False)
class ScoreJob(SideJob[list[Scored]]):
    """Answers to one history."""

    rows: Sequence[Rendered]

    def begin(self, running: Running, /) -> Generator[None, None, list[Scored]]:
        """Log-probabilities of each row."""
        return running.score(self.rows, self.owner)


@dataclass(eq=False)
class PromptJob(SideJob[list[list[Ranked]]]):
    """A prompt, and how many of the best tokens in each place are told.

    opened: virtual tokens at its beginning, of which nothing is told.
    """

    prompt: Sequence[int]
    count: int
    opened: int = 0

    def begin(self, running: Running, /) -> Generator[None, None, list[list[Ranked]]]:
        """Log-probabilities of each token after the first."""
        return running.prompt_logprobs(self.prompt, self.owner, self.count)

    def event(self, value: list[list[Ranked]]) -> PromptRead:
        """Deltas have the same number."""
        return PromptRead(value[self.opened :])


@dataclass(eq=False)
class EmbedJob(SideJob[Vectors]):
    """Texts, as token ids."""

    texts: Sequence[Sequence[int]]
    wanted: Wanted

    def begin(self, running: Embeds, /) -> Generator[None, None, Vectors]:
        """A vector for each text."""
        return running.embed(self.texts, self.owner, self.wanted)


@dataclass(eq=False)
class ClassifyJob(SideJob[Scores]):
    """Texts, as token ids, for a head."""

    texts: Sequence[Sequence[int]]

    def begin(self, running: HeadRunning, /) -> Generator[None, None, Scores]:
        """The logits of each text."""
        return running.classify(self.texts)


@dataclass(eq=False)
class TagJob(SideJob[Tags]):
    """Sentences, as token ids, and the places where their words begin."""

    texts: Sequence[Sequence[int]]
    places: Sequence[Sequence[int]]

    def begin(self, running: HeadRunning, /) -> Generator[None, None, Tags]:
        """The tags of each sentence."""
        return running.tag(self.texts, self.places)


class Beside:
    """The side jobs of one model, in the order of their arrival; belongs to the worker's thread.

    wanted: numbers of jobs that are waited for.
    """

    def __init__(self, running: Running | EncoderRunning | HeadRunning, wanted: set[int]) -> None:
        self._running = running
        self._wanted = wanted
        self._jobs: deque[tuple[SideJob[Any], Generator[None, None, Any]]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    @property
    def owners(self) -> set[str]:
        """Of the jobs that are not done."""
        return {job.owner for job, _ in self._jobs}

    def add(self, job: SideJob[Any]) -> None:
        """Queue a job."""
        self._jobs.append((job, job.begin(self._running)))

    def advance(self) -> list[tuple[int, Event]]:
        """One forward of the first job and what it says; a job that is not wanted any more is let go."""
        if not self._jobs:
            return []
        job, work = self._jobs[0]
        said: list[tuple[int, Event]] = []
        try:
            if job.number in self._wanted:
                next(work)
                return []
        except StopIteration as ended:
            said.append((job.number, job.event(ended.value)))
        except Exception as error:
            said.append((job.number, error))
        self._jobs.popleft()
        return said

    def close(self, error: Exception) -> list[tuple[int, Event]]:
        """End every job."""
        return [(job.number, error) for job, _ in self._jobs]
