"""The thread that runs the models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from dialoop.engine.shelf import Shelf, read_again, shelve
from dialoop.engine.wire import Deliver, Event, Loading, Said, Shelved
from dialoop.models.adapters import Adapters, Lora
from dialoop.types import Delta, Occupancy, Usage


@dataclass(eq=False, slots=True)
class Job:
    """The rows of one request, and the number under which their deltas are delivered.

    best: where only the best of the rows are given.
    """

    number: int
    rows: list[Row]
    best: Best | None = None
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.rows)

    @property
    def owner(self) -> str:
        """The adapter that answers."""
        return self.rows[0].owner

    def deltas(self, row: Row, text: str) -> Sequence[Delta]:
        """What the new text of one row says to the client; the last of all rows carries the usage."""
        delta = self._delta(row, text)
        if delta is None:
            return ()
        return (delta,) if self.best is None else self.best.push(row, delta)

    def _delta(self, row: Row, text: str) -> Delta | None:
        logprobs, ids = row.take_logprobs(), row.take_ids()
        if row.finish_reason is None and not (text or logprobs or ids):
            return None
        delta = Delta(row.index, text, row.finish_reason, logprobs=logprobs, token_ids=ids)
        if row.finish_reason is None:
            return delta
        self.left -= 1
        return delta if self.left else replace(delta, usage=self._usage())

    def _usage(self) -> Usage:
        prompt, cached = self.rows[0].usage
        return Usage(
            prompt,
            sum(len(row.tokens) for row in self.rows),
            cached,
            accepted_tokens=sum(row.accepted for row in self.rows),
            rejected_tokens=sum(row.rejected for row in self.rows),
        )


class Lane:
    """One model's jobs; belongs to the worker's thread.

    wanted: numbers of jobs that are waited for.  fetch: as in `Shelf`.
    """

    def __init__(
        self, running: Running, wanted: set[int], adapter_memory: int, fetch: Callable[[Shelved], None]
    ) -> None:
        self._running = running
        self._wanted = wanted
        self._shelf = Shelf(running.adapters, adapter_memory, fetch)
        self._held: dict[int, str] = {}
        self._line: list[Job | SideJob[Any]] = []
        self._jobs: dict[Row, Job] = {}
        self._beside = Beside(running, wanted)

    def hold(self, number: int, key: str) -> None:
        """A job of this number is being prepared, and its adapter is not to be forgotten until it comes."""
        self._held[number] = key

    def add(self, job: Job | SideJob[Any]) -> None:
        """Queue a job; all rows of one in order."""
        self._held.pop(job.number, None)
        self._line.append(job)
        self._admit()

    def know(self, shelved: Shelved) -> None:
        """An adapter of an earlier life, to be read for its first job."""
        self._shelf.know(shelved)

    def shelve(self, number: int, shelved: Shelved, lora: Lora) -> Said:
        """Know a new adapter, and say so."""
        if number not in self._wanted:
            return []
        self._shelf.add(shelved, lora, self._used())
        return [(number, shelved)]

    def retire(self, key: str) -> None:
        """Forget an adapter; jobs that came before are done with it still."""
        self._shelf.retire(key)
        self._admit()

    def arrive(self, key: str, read: Lora | Exception) -> Said:
        """An adapter that jobs wait for was read, or could not be."""
        said: Said = []
        if isinstance(read, Exception):
            self._shelf.put(key, None)
            said = self._fail((job for job in self._line if job.owner == key), read)
        else:
            self._shelf.put(key, read)
        self._admit()
        return said

    @property
    def busy(self) -> bool:
        return bool(self._jobs) or self._beside.busy

    def occupancy(self, model: str) -> Occupancy:
        """From any thread, beside the steps: a sum may be one job out."""
        seen = self._running.occupancy(model)
        return replace(seen, waiting=seen.waiting + len(self._line))

    def advance(self) -> Said:
        """One step and what it says; a failure ends the jobs that took part in it, no others.

        Jobs that are not wanted any more are let go first. Side jobs go on beside it, one forward at a time.
        """
        said = self._beside.advance()
        self._forget_unwanted()
        said += self._step()
        self._admit()
        return said

    def _admit(self) -> None:
        """Begin the jobs whose adapter is in memory, in line; let adapters go that no job needs."""
        if self._held:
            self._held = {number: key for number, key in self._held.items() if number in self._wanted}
        if not (self._line or self._shelf.leaving):
            return
        waiting: list[Job | SideJob[Any]] = []
        used, full = self._used(), False
        for job in self._line:
            if job.number not in self._wanted:
                continue
            place = self._shelf.find(job.owner, used, waits=full)
            if place == "here":
                used.add(job.owner)
                self._begin(job)
            else:
                waiting.append(job)
                full = full or place == "full"
        self._line = waiting
        self._shelf.sweep(used | {job.owner for job in waiting} | set(self._held.values()))

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

    def _step(self) -> list[tuple[int, Event]]:
        try:
            said = self._running.advance()
        except StepError as error:
            return self._fail((self._jobs[row] for row in error.rows), error.reason)
        deltas: dict[int, list[Delta]] = {}
        for row, text in said:
            job = self._jobs[row]
            if news := job.deltas(row, text):
                deltas.setdefault(job.number, []).extend(news)
            if row.finish_reason is not None:
                del self._jobs[row]
        return list(deltas.items())

    def close(self, error: Exception) -> Said:
        """End every job, the waiting ones too."""
        return [*self._beside.close(error), *self._fail([*self._jobs.values(), *self._line], error)]

    def _forget_unwanted(self) -> None:
        gone = {row for row, job in self._jobs.items() if job.number not in self._wanted}
        if gone:
            self._running.drop(gone.__contains__)
            for row in gone:
                del self._jobs[row]

    def _fail(self, jobs: Iterable[Job | SideJob[Any]], error: Exception) -> list[tuple[int, Event]]:
        """They are let go before the next step."""
        numbers = dict.fromkeys(job.number for job in jobs)
        self._wanted.difference_update(numbers)
        return [(number, error) for number in numbers]


Change = Callable[[Lane], Said | None]


class Worker:
    """Runs the lanes in turn while they have rows, and sleeps when none has.

    wanted: numbers of jobs that are waited for.  deliver: takes what a step says, all at once.
    adapter_memory: bytes, by model, of adapters that are not pinned.
    """

    def __init__(
        self,
        models: Mapping[int, Running | EncoderRunning],
        wanted: set[int],
        deliver: Deliver,
        adapter_memory: int,
    ) -> None:
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="dialoop-adapters")
        self._adapters = {key: each.adapters for key, each in models.items() if isinstance(each, Running)}
        self._memory = adapter_memory
        self._lanes: dict[int, Lane | Beside] = {
            key: Lane(running, wanted, adapter_memory, partial(self._fetch, key, running.adapters))
            if isinstance(running, Running)
            else Beside(running, wanted)
            for key, running in models.items()
        }
        self._deliver = deliver
        self._inbox: list[tuple[int, Job | SideJob[Any] | Change]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="dialoop-engine", daemon=True)
        self._thread.start()

    def submit(self, model: int, *jobs: Job | SideJob[Any] | Change) -> None:
        """Queue jobs, or changes to a lane between two steps. Raises RuntimeError after `close`."""
        with self._changed:
            if self._closing:
                raise RuntimeError("the engine is closed")
            self._inbox += [(model, job) for job in jobs]
            self._changed.notify()

    def load(self, model: int, number: int, work: Loading) -> None:
        """Read a new adapter beside the steps; its lane says what is known of it."""
        self._reading.submit(self._load, model, number, work)

    def occupancy(self, model: int, name: str) -> Occupancy:
        """How busy a model is, from any thread."""
        lane = self._lanes[model]
        return lane.occupancy(name) if isinstance(lane, Lane) else Occupancy(name, running=int(lane.busy))

    def close(self) -> None:
        """End the thread after its current step; jobs that were not done get an error."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._reading.shutdown()

    def _load(self, model: int, number: int, work: Loading) -> None:
        try:
            shelved, lora = shelve(
                work.adapter, work.folder, self._adapters[model], pinned=work.pinned, memory=self._memory
            )
            self.submit(model, lambda lane: lane.shelve(number, shelved, lora))
        except Exception as error:
            self._deliver([(number, error)])

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
            lane = self._lanes[model]
            if isinstance(lane, Beside):
                assert isinstance(job, SideJob), "an encoder embeds only"
                lane.add(job)
            elif not callable(job):
                lane.add(job)
            elif said := job(lane):
                self._deliver(said)
        return closing
