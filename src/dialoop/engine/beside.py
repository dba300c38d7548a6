"""Work beside the answers: one forward at a time, so that no answer waits for the whole of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from dialoop.chat.render import Rendered
from dialoop.engine.embed import EncoderRunning, Vectors, Wanted
from dialoop.engine.prompt_logprobs import Ranked
from dialoop.engine.running import Running
from dialoop.types import Scored

T = TypeVar("T")


class Embeds(Protocol):
    """A model that turns texts into vectors."""

    def embed(
        self, texts: Sequence[Sequence[int]], owner: str, wanted: Wanted, /
    ) -> Generator[None, None, Vectors]: ...


@dataclass(eq=False)
class SideJob(Generic[T]):
    """`begin` gives the work, which yields after each forward; `result` takes what it returns.

    owner: the adapter that it goes through.
    """

    owner: str
    result: Future[T] = field(default_factory=Future, init=False)

    def begin(self, running: Any, /) -> Generator[None, None, T]:
        """The work on a model."""
        raise NotImplementedError

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self.result.done()

    def done(self, value: T) -> None:
        """The result may be cancelled from another thread at any moment."""
        with suppress(InvalidStateError):
            self.result.set_result(value)

    def fail(self, error: Exception) -> None:
        """End it."""
        with suppress(InvalidStateError):
            self.result.set_exception(error)


@dataclass(eq=False)
class ScoreJob(SideJob[list[Scored]]):
    """Answers to one history."""

    rows: Sequence[Rendered]

    def begin(self, running: Running, /) -> Generator[None, None, list[Scored]]:
        """Log-probabilities of each row."""
        return running.score(self.rows, self.owner)


@dataclass(eq=False)
class PromptJob(SideJob[list[list[Ranked]]]):
    """A prompt, and how many of the best tokens in each place are told."""

    prompt: Sequence[int]
    count: int

    def begin(self, running: Running, /) -> Generator[None, None, list[list[Ranked]]]:
        """Log-probabilities of each token after the first."""
        return running.prompt_logprobs(self.prompt, self.owner, self.count)


@dataclass(eq=False)
class EmbedJob(SideJob[Vectors]):
    """Texts, as token ids."""

    texts: Sequence[Sequence[int]]
    wanted: Wanted

    def begin(self, running: Embeds, /) -> Generator[None, None, Vectors]:
        """A vector for each text."""
        return running.embed(self.texts, self.owner, self.wanted)


class Beside:
    """The side jobs of one model, in the order of their arrival; belongs to the worker's thread."""

    def __init__(self, running: Running | EncoderRunning) -> None:
        self._running = running
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

    def advance(self) -> None:
        """One forward of the first job; a job whose result nobody wants any more is let go."""
        if not self._jobs:
            return
        job, work = self._jobs[0]
        try:
            if not job.cancelled:
                next(work)
                return
        except StopIteration as ended:
            job.done(ended.value)
        except Exception as error:
            job.fail(error)
        self._jobs.popleft()

    def close(self, error: Exception) -> None:
        """End every job."""
        for job, _ in self._jobs:
            job.fail(error)
