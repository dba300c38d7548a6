"""The thread that runs the models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dialoop.engine.beside import Beside, SideJob
from dialoop.engine.best import Best
from dialoop.engine.embed import EncoderRunning
from dialoop.engine.row import Row
from dialoop.engine.running import Running, StepError
from dialoop.types import Delta, Usage

Event = Sequence[Delta] | Exception


@dataclass(eq=False, slots=True)
class Job:
    """One request: its rows, and where their deltas go. `send` is called from the worker's thread.

    best: where only the best of the rows are given.
    """

    rows: list[Row]
    send: Callable[[Event], None]
    best: Best | None = None
    cancelled: bool = False
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.rows)

    def deltas(self, row: Row, text: str) -> Sequence[Delta]:
        """What the new text of one row says to the client; the last of all rows carries the usage."""
        delta = self._delta(row, text)
        if delta is None:
            return ()
        return (delta,) if self.best is None else self.best.push(row, delta)

    def _delta(self, row: Row, text: str) -> Delta | None:
        logprobs = row.take_logprobs()
        if row.finish_reason is None:
            return Delta(row.index, text, logprobs=logprobs) if text or logprobs else None
        self.left -= 1
        delta = Delta(row.index, text, row.finish_reason, logprobs=logprobs)
        return delta if self.left else replace(delta, usage=self._usage())

    def _usage(self) -> Usage:
        first = self.rows[0]
        return Usage(len(first.prompt), sum(len(row.tokens) for row in self.rows), first.cached)


class Lane:
    """One model's jobs; belongs to the worker's thread."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._jobs: dict[Row, Job] = {}
        self._beside = Beside(running)

    def beside(self, job: SideJob) -> None:
        """Queue a side job."""
        self._beside.beside(job)

    def add(self, job: Job) -> None:
        """Queue a job; all rows of one in order."""
        for row in job.rows:
            self._jobs[row] = job
            self._running.add(row)

    @property
    def busy(self) -> bool:
        return bool(self._jobs) or self._beside.busy

    def advance(self) -> None:
        """One step, cancelled jobs let go first; a failure ends the jobs that took part in it, no others.

        Side jobs go on beside it, one forward at a time.
        """
        self._beside.advance()
        self._forget_cancelled()
        try:
            said = self._running.advance()
        except StepError as error:
            self._fail(error.rows, error.reason)
            return
        deltas: dict[Job, list[Delta]] = {}
        for row, text in said:
            job = self._jobs[row]
            if news := job.deltas(row, text):
                deltas.setdefault(job, []).extend(news)
            if row.finish_reason is not None:
                del self._jobs[row]
        for job, gathered in deltas.items():
            job.send(gathered)

    def close(self, error: Exception) -> None:
        """End every job, the waiting ones too."""
        self._fail(list(self._jobs), error)
        self._beside.close(error)

    def _forget_cancelled(self) -> None:
        if any(job.cancelled for job in self._jobs.values()):
            self._running.drop(lambda row: self._jobs[row].cancelled)
            self._jobs = {row: job for row, job in self._jobs.items() if not job.cancelled}

    def _fail(self, rows: list[Row], error: Exception) -> None:
        for job in dict.fromkeys(self._jobs[row] for row in rows):
            job.cancelled = True
            job.send(error)


class Worker:
    """Runs the lanes in turn while they have rows, and sleeps when none has."""

    def __init__(self, models: Mapping[int, Running | EncoderRunning]) -> None:
        self._lanes: dict[int, Lane | Beside] = {
            key: Lane(running) if isinstance(running, Running) else Beside(running)
            for key, running in models.items()
        }
        self._inbox: list[tuple[int, Job | SideJob]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="dialoop-engine", daemon=True)
        self._thread.start()

    def submit(self, model: int, job: Job | SideJob) -> None:
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
                if lane.busy:
                    lane.advance()
        for lane in self._lanes.values():
            lane.close(RuntimeError("the engine was closed"))

    def _receive(self) -> bool:
        """Hand new jobs to their lanes, waiting for one when there is nothing to do; True at the end."""
        with self._changed:
            idle = not any(lane.busy for lane in self._lanes.values())
            self._changed.wait_for(lambda: not idle or self._closing or bool(self._inbox))
            arrived, self._inbox = self._inbox, []
            closing = self._closing
        for model, job in arrived:
            lane = self._lanes[model]
            if isinstance(job, Job):
                assert isinstance(lane, Lane), "encoders answer nothing"
                lane.add(job)
            else:
                lane.beside(job)
        return closing
