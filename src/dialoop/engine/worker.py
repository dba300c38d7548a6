"""The thread that runs the models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from dialoop.engine.beside import Beside, SideJob
from dialoop.engine.best import Best
from dialoop.engine.embed import EncoderRunning
from dialoop.engine.row import Row
from dialoop.engine.running import Running, StepError
from dialoop.engine.shelf import Shelf, Shelved, read_again
from dialoop.models.adapters import Adapters, Lora
from dialoop.types import Delta, Usage

Event = Sequence[Delta] | Exception
Change = Callable[["Lane"], None]


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

    @property
    def owner(self) -> str:
        """The adapter that answers."""
        return self.rows[0].owner

    def fail(self, error: Exception) -> None:
        """End it; its rows are let go before the next step."""
        self.cancelled = True
        self.send(error)

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
    """One model's jobs; belongs to the worker's thread. fetch: as in `Shelf`."""

    def __init__(self, running: Running, adapter_memory: int, fetch: Callable[[Shelved], None]) -> None:
        self._running = running
        self._shelf = Shelf(running.adapters, adapter_memory, fetch)
        self._line: list[Job | SideJob[Any]] = []
        self._jobs: dict[Row, Job] = {}
        self._beside = Beside(running)

    def add(self, job: Job | SideJob[Any]) -> None:
        """Queue a job; all rows of one in order."""
        self._line.append(job)
        self._admit()

    def shelve(self, shelved: Shelved, lora: Lora) -> None:
        """Know a new adapter."""
        self._shelf.add(shelved, lora, self._used())

    def retire(self, key: str) -> None:
        """Forget an adapter; jobs that came before are done with it still."""
        self._shelf.retire(key)
        self._admit()

    def arrive(self, key: str, read: Lora | Exception) -> None:
        """An adapter that jobs wait for was read, or could not be."""
        self._shelf.put(key, read if isinstance(read, Lora) else None)
        if isinstance(read, Exception):
            for job in self._line:
                if job.owner == key and not job.cancelled:
                    job.fail(read)
        self._admit()

    @property
    def busy(self) -> bool:
        return bool(self._jobs) or self._beside.busy

    def advance(self) -> None:
        """One step, cancelled jobs let go first; a failure ends the jobs that took part in it, no others.

        Side jobs go on beside it, one forward at a time.
        """
        self._beside.advance()
        self._forget_cancelled()
        self._step()
        self._admit()

    def _admit(self) -> None:
        """Begin the jobs whose adapter is in memory, in line; let adapters go that no job needs."""
        if not (self._line or self._shelf.leaving):
            return
        waiting: list[Job | SideJob[Any]] = []
        used, full = self._used(), False
        for job in self._line:
            if job.cancelled:
                continue
            place = self._shelf.find(job.owner, used, waits=full)
            if place == "here":
                used.add(job.owner)
                self._begin(job)
            else:
                waiting.append(job)
                full = full or place == "full"
        self._line = waiting
        self._shelf.sweep(used | {job.owner for job in waiting})

    def _begin(self, job: Job | SideJob[Any]) -> None:
        if not isinstance(job, Job):
            self._beside.add(job)
            return
        for row in job.rows:
            self._jobs[row] = job
            self._running.add(row)

    def _used(self) -> set[str]:
        """The adapters of the jobs that have begun."""
        return {job.owner for job in self._jobs.values()} | self._beside.owners

    def _step(self) -> None:
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
        for job in self._line:
            job.fail(error)

    def _forget_cancelled(self) -> None:
        if any(job.cancelled for job in self._jobs.values()):
            self._running.drop(lambda row: self._jobs[row].cancelled)
            self._jobs = {row: job for row, job in self._jobs.items() if not job.cancelled}

    def _fail(self, rows: list[Row], error: Exception) -> None:
        for job in dict.fromkeys(self._jobs[row] for row in rows):
            job.fail(error)


class Worker:
    """Runs the lanes in turn while they have rows, and sleeps when none has.

    adapter_memory: bytes, by model, of adapters that are not pinned.
    """

    def __init__(self, models: Mapping[int, Running | EncoderRunning], adapter_memory: int) -> None:
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="dialoop-adapters")
        self._lanes: dict[int, Lane | Beside] = {
            key: Lane(running, adapter_memory, partial(self._fetch, key, running.adapters))
            if isinstance(running, Running)
            else Beside(running)
            for key, running in models.items()
        }
        self._inbox: list[tuple[int, Job | SideJob[Any] | Change]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="dialoop-engine", daemon=True)
        self._thread.start()

    def submit(self, model: int, job: Job | SideJob[Any] | Change) -> None:
        """Queue a job, or a change to a lane between two steps. Raises RuntimeError after `close`."""
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
        self._reading.shutdown()

    def _fetch(self, model: int, adapters: Adapters, shelved: Shelved) -> None:
        """Read an adapter beside the steps; its lane hears of it."""

        def read() -> None:
            try:
                found: Lora | Exception = read_again(shelved, adapters)
            except Exception as error:
                found = error
            with suppress(RuntimeError):  # after `close` nobody waits
                self.submit(model, lambda lane: lane.arrive(shelved.key, found))

        self._reading.submit(read)

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
            if isinstance(lane, Beside):
                assert isinstance(job, SideJob), "an encoder embeds only"
                lane.add(job)
            elif callable(job):
                job(lane)
            else:
                lane.add(job)
        return closing
