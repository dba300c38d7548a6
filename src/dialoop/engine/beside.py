"""Work beside the answers: one forward at a time, so that no answer waits for the whole of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from dialoop.chat.render import Rendered
from dialoop.engine.embed import EncoderRunning, Vectors, Wanted
from dialoop.engine.prompt_logprobs import Ranked
from dialoop.engine.running import Running
from dialoop.types import Scored


class SideJob(Protocol):
    """`begin` gives the work, which yields after each forward; `result` takes what it returns."""

    @property
    def result(self) -> Future[Any]: ...

    def begin(self, running: Any, /) -> Generator[None, None, Any]: ...


@dataclass(eq=False, slots=True)
class ScoreJob:
    """Answers to one history."""

    rows: Sequence[Rendered]
    owner: str
    result: Future[list[Scored]] = field(default_factory=Future)

    def begin(self, running: Running) -> Generator[None, None, list[Scored]]:
        """Log-probabilities of each row."""
        return running.score(self.rows, self.owner)


@dataclass(eq=False, slots=True)
class PromptJob:
    """A prompt, and how many of the best tokens in each place are told."""

    prompt: Sequence[int]
    owner: str
    count: int
    result: Future[list[list[Ranked]]] = field(default_factory=Future)

    def begin(self, running: Running) -> Generator[None, None, list[list[Ranked]]]:
        """Log-probabilities of each token after the first."""
        return running.prompt_logprobs(self.prompt, self.owner, self.count)


class Embeds(Protocol):
    """A model that turns texts into vectors."""

    def embed(
        self, texts: Sequence[Sequence[int]], owner: str, wanted: Wanted, /
    ) -> Generator[None, None, Vectors]: ...


@dataclass(eq=False, slots=True)
class EmbedJob:
    """Texts, as token ids."""

    texts: Sequence[Sequence[int]]
    owner: str
    wanted: Wanted
    result: Future[Vectors] = field(default_factory=Future)

    def begin(self, running: Embeds) -> Generator[None, None, Vectors]:
        """A vector for each text."""
        return running.embed(self.texts, self.owner, self.wanted)


class Beside:
    """The side jobs of one model, in the order of their arrival; belongs to the worker's thread."""

    def __init__(self, running: Running | EncoderRunning) -> None:
        self._running = running
        self._jobs: deque[tuple[SideJob, Generator[None, None, Any]]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def beside(self, job: SideJob) -> None:
        """Queue a job."""
        self._jobs.append((job, job.begin(self._running)))

    def advance(self) -> None:
        """One forward of the first job; a job whose result nobody wants any more is let go."""
        if not self._jobs:
            return
        job, work = self._jobs[0]
        # The result may be cancelled from another thread at any moment.
        with suppress(InvalidStateError):
            try:
                if not job.result.cancelled():
                    next(work)
                    return
            except StopIteration as ended:
                job.result.set_result(ended.value)
            except Exception as error:
                job.result.set_exception(error)
        self._jobs.popleft()

    def close(self, error: Exception) -> None:
        """End every job."""
        for job, _ in self._jobs:
            with suppress(InvalidStateError):
                job.result.set_exception(error)
