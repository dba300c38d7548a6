"""Runs fine-tuning jobs, of all projects, one after the other: each in a process of its own.

The store says what is wanted of a job and the runner sees to it, so a request changes a row and nothing else.
One runner works on a home at a time, and one process in a run directory: files that are locked see to that,
and let go of by the system whatever becomes of their holder.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa

from dialoop.config.kinds import TunedRecipe
from dialoop.errors import DialoopError, StoreError
from dialoop.jobs.asked import Shape, Wish, check, names_of, recipe_of, settle, teacher_of
from dialoop.jobs.harvest import Harvest, Offer
from dialoop.jobs.life import LOG, Life, how
from dialoop.jobs.run_directory import BUSY, INTERRUPTED, RunDirectory, as_written
from dialoop.jobs.training_file import FEWEST, read_training_file
from dialoop.store.fine_tuning import OPEN, Job, NewEvent, open_jobs
from dialoop.store.identity import now_micros
from dialoop.store.lease import held
from dialoop.store.registry import Store
from dialoop.types import ModelRef

BUSY_SECONDS, IDLE_SECONDS = 0.5, 5.0
"""Between two looks, while jobs run and while none does; what comes by request is seen at once."""
MOST_FALLS = 3
"""Ends without a word in a row, and without an update between them, after which a job has failed."""
GRACE = 10.0
"""Seconds that processes get to save and leave."""
log = logging.getLogger("dialoop.jobs")


class JobRunner:
    """Keeps the jobs of a home going while it runs.

    at_once: jobs that run side by side.
    """

    def __init__(self, store: Store, offered: Offer, *, at_once: int = 1) -> None:
        self._store, self._offered, self._at_once = store, offered, at_once
        self._lives: dict[str, Life] = {}
        self._seen: set[str] | None = None
        self._home = store.home / "jobs"
        self._woken = threading.Event()
        self._closing = threading.Event()

    async def run(self) -> None:
        """Work until cancelled; then the processes save and leave, and a later runner has them go on."""
        thread = threading.Thread(target=self._work, name="dialoop-jobs", daemon=True)
        thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            self._closing.set()
            self._woken.set()
            await asyncio.to_thread(thread.join)

    def wake(self) -> None:
        """A job came or changed: look at once."""
        self._woken.set()

    def check(
        self, method: str, asked: Mapping[str, Any], settings: Mapping[str, Any], base: ModelRef
    ) -> None:
        """Whether a job could run with these. Raises ConfigError that names what it could not."""
        check(Wish(method, asked, settings), base)

    def _work(self) -> None:
        while not self._closing.is_set():
            with held(self._home / ".runner") as mine:
                if mine:
                    self._keep_looking()
            self._woken.wait(IDLE_SECONDS)

    def _keep_looking(self) -> None:
        while not self._closing.is_set():
            self._woken.clear()
            try:
                busy = self.look()
            except Exception:
                log.exception("the job runner failed: it looks again")
                busy = False
            self._woken.wait(BUSY_SECONDS if busy else IDLE_SECONDS)
        self._leave()

    def look(self) -> bool:
        """Bring what runs in line with what is wanted; whether there is anything to wait for soon."""
        jobs = {job.id: job for job in open_jobs(self._store.engine)}
        for job in jobs.values():
            if job.status == "validating_files":
                self._guarded(job, partial(self._check, job))
        for job_id, life in list(self._lives.items()):
            wanted = jobs.get(job_id)
            self._guarded(wanted, partial(self._attend, job_id, life, wanted))
        waiting = [job for job in open_jobs(self._store.engine) if job.status in ("queued", "running")]
        for job in waiting:
            if len(self._lives) < self._at_once and job.id not in self._lives:
                self._guarded(job, partial(self._begin, job))
        self._sweep(jobs)
        return bool(waiting)

    def _guarded(self, job: Job | None, work: Callable[[], None]) -> None:
        """What nobody foresaw ends one job, not the others; what the disk refuses is tried again."""
        try:
            work()
        except (OSError, StoreError, sa.exc.OperationalError) as error:
            log.error("%s waits: %s", job.id if job else "a job", error)
        except Exception as error:
            log.exception("%s failed", job.id if job else "a job")
            if job is not None:
                self._fail(job, f"an unforeseen {type(error).__name__}: the server's log says where")

    def _sweep(self, jobs: Mapping[str, Job]) -> None:
        """Clear away what jobs left that have ended without a process, such as one cancelled in the queue."""
        if self._seen != set(jobs):
            self._seen = set(jobs)
            for path in self._home.iterdir():
                if path.is_dir() and path.name not in self._seen | self._lives.keys():
                    RunDirectory(path).discard(keep=LOG)

    def _attend(self, job_id: str, life: Life, job: Job | None) -> None:
        """See to a process: whether it is wanted still, what it said, and how it ended."""
        if job is None:
            life.kill()
        elif job.status != "running":
            life.leave()
        ended = life.ended  # looked at before what it said is read, so that nothing is said after
        if job is not None and job.status == "running":
            self._harvest(job).progress(job)
        if ended:
            del self._lives[job_id]
            now = None if job is None else self._store.of(job.project_id).jobs.get(job_id)
            self._conclude(life, now, life.wait(0))

    def _conclude(self, life: Life, job: Job | None, code: int) -> None:
        result = life.run.result
        if job is None or job.status not in OPEN:
            life.run.discard()  # cancelled
        elif job.status != "running" or code in (INTERRUPTED, BUSY):
            return  # it goes on from its checkpoint when it is wanted
        elif result is None:
            self._fallen(job, code)
        elif result["status"] == "succeeded":
            self._harvest(job).publish(job, result)
            life.run.discard()
        else:
            self._fail(job, str(result["message"]))

    def _fallen(self, job: Job, code: int) -> None:
        if job.falls >= MOST_FALLS:
            self._fail(
                job,
                f"the training process ended {job.falls + 1} times in a row, at last: {how(code)}; where "
                f"memory ran out, train with a smaller train.batch_tokens",
            )
            return
        told = f"The training process ended ({how(code)}): it is started again from its last checkpoint"
        self._change(job, [NewEvent(told, "warn")], falls=job.falls + 1)

    def _fail(
        self, job: Job, message: str, *, param: str | None = None, code: str = "training_failed"
    ) -> None:
        error = {"code": code, "message": message, "param": param}
        self._change(
            job, [NewEvent(f"The job failed: {message}", "error")],
            status="failed", error=error, finished=now_micros(), estimated_finish=None,
        )  # fmt: skip
        self._run(job).discard(keep=LOG)

    def _check(self, job: Job) -> None:
        """Read the files, settle what was left open, and queue the job, or fail it."""
        self._change(job, [NewEvent(f"Validating training file: {job.training_file}")])
        counts = {}
        for param, file_id in (
            ("training_file", job.training_file),
            ("validation_file", job.validation_file),
        ):
            try:
                counts[param] = 0 if file_id is None else self._count(job, file_id, param)
            except DialoopError as error:
                self._fail(job, str(error), param=param, code="invalid_training_file")
                return
        try:
            settled, recipe = self._settled(job, counts["training_file"])
        except DialoopError as error:
            self._fail(job, str(error), param="model", code="invalid_request")
            return
        self._change(
            job, [NewEvent("Files validated, moving job to queued state")],
            status="queued", hyperparameters=settled, recipe=recipe.model_dump(mode="json"),
        )  # fmt: skip

    def _count(self, job: Job, file_id: str, param: str) -> int:
        """Rows of a file, which gets a second name in the run directory, where it stays for the job."""
        place = self._run(job).path / file_id
        if not place.is_file():
            self._store.of(job.project_id).files.link(file_id, place)
        fewest = FEWEST if param == "training_file" else 1
        return len(read_training_file(place, file_id, job.method, Wish.of(job).kind, fewest=fewest))

    def _settled(self, job: Job, rows: int) -> tuple[dict[str, Any], TunedRecipe]:
        ref, wish = self._store.of(job.project_id).models.resolve(job.base), Wish.of(job)
        settled = settle(wish, rows)
        return settled, recipe_of(
            wish, settled, name=names_of(job, "")[0], base=job.base, source=job.training_file,
            seed=job.seed, shape=Shape.of(ref), rows=rows,
        )  # fmt: skip

    def _begin(self, job: Job) -> None:
        """Start a process, unless one of an earlier runner is still leaving."""
        run = self._run(job)
        try:
            order = self._order(job)
        except DialoopError as error:
            self._fail(job, str(error), param="model", code="invalid_request")
            return
        with run.occupied() as free:
            if not free:
                return
            run.order(order)
        told = "Fine-tuning job goes on" if job.step else "Fine-tuning job started"
        if self._change(job, [NewEvent(told)], status="running"):
            self._lives[job.id] = Life(run)

    def _order(self, job: Job) -> Mapping[str, Any]:
        resolve, teacher = self._store.of(job.project_id).models.resolve, teacher_of(job.recipe or {})
        return {
            "recipe": job.recipe, "base": as_written(resolve(job.base)),
            "teacher": None if teacher is None else as_written(resolve(teacher)),
            "method": job.method, "training_file": job.training_file, "validation_file": job.validation_file,
        }  # fmt: skip

    def _leave(self) -> None:
        for life in self._lives.values():
            life.leave()
        for life in self._lives.values():
            life.wait(GRACE)

    def _change(self, job: Job, events: list[NewEvent], **values: Any) -> Job | None:
        """None where the job is not in that state any more: a request was quicker."""
        return self._store.of(job.project_id).jobs.change(job.id, [job.status], events, **values)

    def _harvest(self, job: Job) -> Harvest:
        organization = self._store.projects.names()[job.project_id]
        return Harvest(self._store.of(job.project_id), self._run(job), self._offered, organization)

    def _run(self, job: Job) -> RunDirectory:
        return RunDirectory(self._home / job.id)
