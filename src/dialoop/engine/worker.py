"""The thread that runs the models."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dialoop.chat.render import Rendered
from dialoop.engine.row import Row
from dialoop.engine.running import Running, StepError
from dialoop.engine.wire import Deliver, Event
from dialoop.types import Delta, Scored, Usage


@dataclass(eq=False, slots=True)
class Job:
    """The rows of one request, and the number under which their deltas are delivered."""

    number: int
    rows: list[Row]
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.rows)

    def delta(self, row: Row, text: str) -> Delta | None:
        """What the new text of one row says to the client; the last of all rows carries the usage."""
        logprobs = row.take_logprobs()
        if row.finish_reason is None:
            return Delta(row.index, text, logprobs=logprobs) if text or logprobs else None
        self.left -= 1
        delta = Delta(row.index, text, row.finish_reason, logprobs=logprobs)
        return delta if self.left else replace(delta, usage=self._usage())

    def _usage(self) -> Usage:
        first = self.rows[0]
        return Usage(len(first.prompt), sum(len(row.tokens) for row in self.rows), first.cached)


@dataclass(eq=False, slots=True)
class ScoreJob:
    """Answers to one history."""

    number: int
    rows: Sequence[Rendered]
    owner: str


class Lane:
    """One model's jobs; belongs to the worker's thread. wanted: numbers of jobs that are waited for."""

    def __init__(self, running: Running, wanted: set[int]) -> None:
        self._running = running
        self._wanted = wanted
        self._jobs: dict[Row, Job] = {}
        self._scores: deque[tuple[ScoreJob, Generator[None, None, list[Scored]]]] = deque()

    def add(self, job: Job | ScoreJob) -> None:
        """Queue a job; all rows of one in order."""
        if isinstance(job, ScoreJob):
            self._scores.append((job, self._running.score(job.rows, job.owner)))
            return
        for row in job.rows:
            self._jobs[row] = job
            self._running.add(row)

    @property
    def busy(self) -> bool:
        return bool(self._jobs or self._scores)

    def advance(self) -> list[tuple[int, Event]]:
        """One step and what it says; a failure ends the jobs that took part in it, no others.

        Jobs that are not wanted any more are let go first. Scoring goes on beside it, one forward at a time.
        """
        scored = self._score()
        self._forget_unwanted()
        try:
            said = self._running.advance()
        except StepError as error:
            return scored + self._fail(error.rows, error.reason)
        deltas: dict[int, list[Delta]] = {}
        for row, text in said:
            job = self._jobs[row]
            if (delta := job.delta(row, text)) is not None:
                deltas.setdefault(job.number, []).append(delta)
            if row.finish_reason is not None:
                del self._jobs[row]
        return [*scored, *deltas.items()]

    def close(self, error: Exception) -> list[tuple[int, Event]]:
        """End every job, the waiting ones too."""
        return self._fail(list(self._jobs), error) + [(job.number, error) for job, _ in self._scores]

    def _score(self) -> list[tuple[int, Event]]:
        if not self._scores:
            return []
        job, work = self._scores[0]
        said: list[tuple[int, Event]] = []
        try:
            if job.number in self._wanted:
                next(work)
                return []
        except StopIteration as ended:
            said.append((job.number, tuple(ended.value)))
        except Exception as error:
            said.append((job.number, error))
        self._scores.popleft()
        return said

    def _forget_unwanted(self) -> None:
        gone = {row for row, job in self._jobs.items() if job.number not in self._wanted}
        if gone:
            self._running.drop(gone.__contains__)
            for row in gone:
                del self._jobs[row]

    def _fail(self, rows: list[Row], error: Exception) -> list[tuple[int, Event]]:
        numbers = dict.fromkeys(self._jobs[row].number for row in rows)
        self._wanted.difference_update(numbers)
        return [(number, error) for number in numbers]


class Worker:
    """Runs the lanes in turn while they have rows, and sleeps when none has.

    wanted: numbers of jobs that are waited for.  deliver: takes what a step says, all at once.
    """

    def __init__(self, models: Mapping[int, Running], wanted: set[int], deliver: Deliver) -> None:
        self._lanes = {key: Lane(running, wanted) for key, running in models.items()}
        self._deliver = deliver
        self._inbox: list[tuple[int, Job | ScoreJob]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="dialoop-engine", daemon=True)
        self._thread.start()

    def submit(self, model: int, job: Job | ScoreJob) -> None:
        """Queue a job. Raises RuntimeError after `close`."""
        with self._changed:
            if self._closing:
                raise RuntimeError("the engine is closed")
            self._inbox.append((model, job))
            self._changed.notify()

    def close(self) -> None:
        """End the thread after its current step; jobs that were not done get an error."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while not self._receive():
            for lane in self._lanes.values():
                if lane.busy and (said := lane.advance()):
                    self._deliver(said)
        for lane in self._lanes.values():
            self._deliver(lane.close(RuntimeError("the engine was closed")))

    def _receive(self) -> bool:
        """Hand new jobs to their lanes, waiting for one when there is nothing to do; True at the end."""
        with self._changed:
            idle = not any(lane.busy for lane in self._lanes.values())
            self._changed.wait_for(lambda: not idle or self._closing or bool(self._inbox))
            arrived, self._inbox = self._inbox, []
            closing = self._closing
        for model, job in arrived:
            self._lanes[model].add(job)
        return closing
