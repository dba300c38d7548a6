"""The thread that runs the models."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from dialoop.engine.row import Row
from dialoop.engine.running import Running
from dialoop.types import Delta, Usage

Event = Sequence[Delta] | Exception


@dataclass(eq=False, slots=True)
class Job:
    """One request: its rows, and where their deltas go. `send` is called from the worker's thread."""

    rows: list[Row]
    send: Callable[[Event], None]
    cancelled: bool = False
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
        return Usage(len(self.rows[0].prompt), sum(len(row.tokens) for row in self.rows))


class Lane:
    """One model's running and waiting rows; belongs to the worker's thread."""

    def __init__(self, model: torch.nn.Module, max_rows: int, prefill_tokens: int) -> None:
        self._model = model
        self._max_rows = max_rows
        self._prefill_tokens = prefill_tokens
        self._running = Running(model)
        self._waiting: deque[Row] = deque()
        self._jobs: dict[Row, Job] = {}

    def add(self, job: Job) -> None:
        """Queue all rows of a job, in order."""
        self._jobs.update(dict.fromkeys(job.rows, job))
        self._waiting.extend(job.rows)

    @property
    def busy(self) -> bool:
        return bool(self._running.rows or self._waiting)

    def advance(self, joining: list[Row]) -> None:
        """One step; a failure ends the jobs that took part in it and no others."""
        try:
            said = self._running.advance(joining)
        except Exception as error:
            self._fail([*self._running.rows, *joining], error)
            return
        deltas: dict[Job, list[Delta]] = {}
        for row, text in said:
            job = self._jobs[row]
            if (delta := job.delta(row, text)) is not None:
                deltas.setdefault(job, []).append(delta)
            if row.finish_reason is not None:
                del self._jobs[row]
        for job, news in deltas.items():
            job.send(news)

    def admit(self) -> list[Row]:
        """Drop the rows of cancelled jobs; take waiting rows, first come first served, into the free places.

        Only as many as `prefill_tokens` padded tokens allow (at least one), so that running rows go on.
        """
        self._running.drop(self._cancelled)
        joining: list[Row] = []
        width = 0
        while self._waiting and len(self._running.rows) + len(joining) < self._max_rows:
            if self._cancelled(self._waiting[0]):
                self._forget(self._waiting.popleft())
                continue
            width = max(width, len(self._waiting[0].prompt))
            if joining and width * (len(joining) + 1) > self._prefill_tokens:
                break
            joining.append(self._waiting.popleft())
        self._jobs = {row: job for row, job in self._jobs.items() if not job.cancelled}
        return joining

    def fail_all(self, error: Exception) -> None:
        """End every job, the waiting ones too."""
        self._fail(list(self._jobs), error)

    def _cancelled(self, row: Row) -> bool:
        return row not in self._jobs or self._jobs[row].cancelled

    def _forget(self, row: Row) -> None:
        self._jobs.pop(row, None)

    def _fail(self, rows: list[Row], error: Exception) -> None:
        for job in dict.fromkeys(self._jobs[row] for row in rows if row in self._jobs):
            job.cancelled = True
            job.send(error)
        self._running = Running(self._model)


class Worker:
    """Runs the lanes in turn while they have rows, and sleeps when none has."""

    def __init__(self, models: Mapping[str, torch.nn.Module], *, max_rows: int, prefill_tokens: int) -> None:
        self._lanes = {name: Lane(model, max_rows, prefill_tokens) for name, model in models.items()}
        self._inbox: list[tuple[str, Job]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="dialoop-engine", daemon=True)
        self._thread.start()

    def submit(self, model: str, job: Job) -> None:
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
                lane.advance(lane.admit())
        for lane in self._lanes.values():
            lane.fail_all(RuntimeError("the engine was closed"))

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
