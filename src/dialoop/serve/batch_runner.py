"""Runs batches beside the requests of clients: through the same routes, and never before them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from dialoop.serve.background import SideBySide
from dialoop.serve.batch_lines import Checked, Line, check_lines, lines_of
from dialoop.serve.batch_progress import ERRORS, OUTPUT, Progress
from dialoop.serve.caller import Caller, acting_for
from dialoop.serve.fields import ChatBody
from dialoop.serve.gate import Gate
from dialoop.serve.inside import Answered
from dialoop.store.batches import Batch, BatchStatus
from dialoop.store.identity import new_id, now_micros
from dialoop.store.registry import Store

Ask = Callable[[str, bytes, Caller], Awaitable[Answered]]
POLL_SECONDS = 5.0
"""Between two looks for batches that another process made, cancelled or left, or that failed to go on."""
COUNT_SECONDS = 1.0
"""Between two writes of how far a batch is."""
MOST_BATCHES = 16
"""Worked on side by side; they take turns, request by request."""
READ_LINES = 64
AGAIN = frozenset({408, 429, 502, 503, 504})
"""Answers that say: later."""
TRIES_OF_500 = 3
LOW_PRIORITY = 1
"""The engine's: higher numbers wait longer, though not for ever."""
EXPIRED = "This request could not be executed before the completion window expired."
CANCELLED = "This request was not executed before the batch was cancelled."


class BatchRunner:
    """Works on the open batches of a store until it is cancelled; another takes up what it leaves.

    ask: answers a request as a caller.  gate: how many at a time.  served: the models that there are; a batch
    that needs others waits for them once it has begun.
    """

    def __init__(self, store: Store, ask: Ask, gate: Gate, served: Callable[[], Collection[str]]) -> None:
        self._store, self._ask, self._gate, self._served = store, ask, gate, served
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is a new batch, or one to be cancelled."""
        self._woken.set()

    async def run(self) -> None:
        """Never returns."""
        await asyncio.to_thread(self._store.batches.tidy)
        working = SideBySide(self._work, MOST_BATCHES, self.wake)
        try:
            while True:
                self._woken.clear()
                for batch in await asyncio.to_thread(self._store.batches.open):
                    _look_at(batch, working)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._woken.wait()
        finally:
            await working.end()

    async def _work(self, batch: Batch) -> None:
        """As far as it goes; all that is done is on disk before anything says so."""
        folder = self._store.batches.folder(batch.id)
        with _alone(folder) as alone, acting_for(batch.project_id):
            begun = await self._validated(batch, folder) if alone else None
            if begun is not None and self._can_go_on(begun):
                with await asyncio.to_thread(Progress, folder) as progress:
                    if begun.status == "in_progress":
                        await self._answer(begun, folder, progress)
                    await self._finish(begun, folder, progress)
        await asyncio.to_thread(self._store.batches.tidy)

    async def _validated(self, batch: Batch, folder: Path) -> Batch | None:
        """The batch with its lines counted; None where they cannot be asked."""
        if batch.status != "validating":
            return batch
        served = set(self._served())
        checked: Checked = await asyncio.to_thread(
            check_lines, folder / "input.jsonl", (batch.endpoint,), served.__contains__
        )
        change = self._store.batches.change
        if checked.problems:
            errors = [problem.to_openai() for problem in checked.problems]
            await asyncio.to_thread(change, batch, "failed", errors=errors)
            return None
        return await asyncio.to_thread(
            change, batch, "in_progress", total=checked.total, models=list(checked.models)
        )

    def _can_go_on(self, batch: Batch) -> bool:
        """Whether the models are there that it needs, if it needs any."""
        asks = batch.status == "in_progress" and batch.expires > now_micros()
        return not asks or set(batch.models) <= set(self._served())

    async def _answer(self, batch: Batch, folder: Path, progress: Progress) -> None:
        """Ask all that was not answered before, or until it expires."""
        left = (batch.expires - now_micros()) / 1e6
        counting = asyncio.create_task(self._count(batch, progress))
        try:
            async with asyncio.timeout(left):
                await self._all_lines(batch, folder, progress)
        except TimeoutError:
            pass
        finally:
            counting.cancel()

    async def _all_lines(self, batch: Batch, folder: Path, progress: Progress) -> None:
        lines = lines_of(folder / "input.jsonl")
        room = asyncio.Semaphore(READ_LINES)
        async with asyncio.TaskGroup() as group:
            while some := await asyncio.to_thread(lambda: list(islice(lines, READ_LINES))):
                for line in some:
                    if line.custom_id not in progress.done:
                        await room.acquire()
                        task = group.create_task(self._line(batch, line, progress))
                        task.add_done_callback(lambda _: room.release())

    async def _line(self, batch: Batch, line: Line, progress: Progress) -> None:
        raw = json.dumps({**_patient(batch.endpoint), **line.body}, ensure_ascii=False).encode()
        caller, failures = Caller(batch.project_id, batch.key_id), 0
        while True:
            async with self._gate.passed():
                answered = await self._ask(batch.endpoint, raw, caller)
            failures += answered.status == 500
            if answered.status not in AGAIN and (answered.status != 500 or failures == TRIES_OF_500):
                break
            await asyncio.sleep(_pause(answered))
        body = json.loads(answered.body)
        await asyncio.to_thread(progress.answered, line.custom_id, answered.status, body)

    async def _count(self, batch: Batch, progress: Progress) -> None:
        while True:
            await asyncio.to_thread(self._store.batches.change, batch, **_counts(progress))
            await asyncio.sleep(COUNT_SECONDS)

    async def _finish(self, batch: Batch, folder: Path, progress: Progress) -> None:
        """Make files of what was answered. Begun again, it makes the same ones."""
        left = batch.total - len(progress.done)
        if left:
            why = ("cancelled", CANCELLED) if batch.status == "cancelling" else ("expired", EXPIRED)
            await asyncio.to_thread(_give_up, folder, progress, *why)
        status: BatchStatus = "expired" if progress.gave_up else "completed"
        status = "cancelled" if batch.status == "cancelling" else status
        during: BatchStatus = "finalizing" if status == "completed" else batch.status
        ids = {"output_file_id": batch.output_file_id, "error_file_id": batch.error_file_id}
        for field, name in (("output_file_id", OUTPUT), ("error_file_id", ERRORS)):
            if ids[field] is None and progress.counts[name]:
                ids[field] = new_id("file")
        change = self._store.batches.change
        now = await asyncio.to_thread(change, batch, during, **ids, **_counts(progress))
        if now is not None:
            await asyncio.to_thread(self._publish, now, folder)
            await asyncio.to_thread(change, now, status, **_counts(progress))

    def _publish(self, batch: Batch, folder: Path) -> None:
        files = self._store.of(batch.project_id).files
        for file_id, name in ((batch.output_file_id, OUTPUT), (batch.error_file_id, ERRORS)):
            if file_id is not None:
                with files.staged() as staged:
                    os.link(folder / name, staged / name)
                    files.adopt(
                        staged / name, filename=f"{batch.id}_{name}", purpose="batch_output",
                        seconds=batch.output_seconds, file_id=file_id,
                    )  # fmt: skip


def _look_at(batch: Batch, working: SideBySide[Batch]) -> None:
    """Begin it, or end what was begun before it was cancelled."""
    begun = working.begun(batch.id)
    if begun is None:
        working.begin(batch.id, batch)
    elif batch.status == "cancelling" and begun.status != "cancelling":
        working.cancel(batch.id)


def _patient(endpoint: str) -> dict[str, Any]:
    """What lets the engine take others first, where it can."""
    chats = endpoint in ("/v1/chat/completions", "/v1/completions")
    return {"priority": LOW_PRIORITY} if chats and "priority" in ChatBody.model_fields else {}


def _counts(progress: Progress) -> dict[str, Any]:
    counts, usage = progress.counts, dict(progress.usage)
    return {"completed": counts[OUTPUT], "failed": counts[ERRORS], "usage": usage}


def _give_up(folder: Path, progress: Progress, code: str, message: str) -> None:
    for line in lines_of(folder / "input.jsonl"):
        progress.not_asked(line.custom_id, f"batch_{code}", message)


def _pause(answered: Answered) -> float:
    """Seconds until it is asked again."""
    told = answered.headers.get("retry-after", "")
    return min(30.0, max(0.2, float(told))) if told.isdecimal() else 1.0


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other process works on the batch; the lock of a killed one is free."""
    try:
        file = (folder / ".lock").open("a")
    except FileNotFoundError:  # it has ended meanwhile
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
