"""/v1/fine_tuning/jobs, and the deletion of the models that they make."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from dialoop.errors import (
    ConfigError,
    StoreError,
    UnknownModelError,
    UnknownRecordError,
    UnsupportedError,
    echo,
)
from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.connection import EventStream
from dialoop.serve.errors import HttpError
from dialoop.serve.fine_tuning_wire import (
    CreateJob,
    checkpoint_to_openai,
    event_to_openai,
    job_to_openai,
    parse,
)
from dialoop.serve.paging import ListQuery, page_to_openai
from dialoop.serve.stored import StoredQuery
from dialoop.serve.typed_body import described
from dialoop.store.fine_tuning import OPEN, Job, NewEvent, Status
from dialoop.store.identity import now_micros
from dialoop.store.registry import Store
from dialoop.types import Catalogue, ModelRef, Served

LIVE_SECONDS = 0.5
"""Between two looks for events that are streamed."""


class Runner(Protocol):
    """Runs the jobs of a store."""

    async def run(self) -> None: ...

    def wake(self) -> None: ...

    def check(
        self, method: str, asked: Mapping[str, Any], settings: Mapping[str, Any], base: ModelRef
    ) -> None: ...


class Withdraw(Protocol):
    """Serves fine-tuned models."""

    def withdraw(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Tuning:
    """What fine-tuning over HTTP needs. bases: models to begin from, by the names that they are served by."""

    runner: Runner
    models: Withdraw
    bases: Mapping[str, ModelRef]


class JobsQuery(StoredQuery):
    """The query of the jobs; `metadata[key]=value` asks for those that have it."""

    order: Literal["asc", "desc"] = "desc"
    """By time of making."""
    model: str | None = None
    """Only those that began with this model."""


class EventsQuery(ListQuery):
    """The query of the events of a job."""

    stream: bool = False
    """Give the events as server-sent events, the oldest first, until the job has ended."""


class CheckpointsQuery(ListQuery):
    """The query of the checkpoints of a job."""

    limit: int = Field(10, ge=1, le=100)
    """Most objects to give."""


def fine_tuning_routes(
    catalogue: Catalogue, store: Store, tuning: Tuning | None, *, max_body_bytes: int, body_seconds: float
) -> APIRouter:
    """The routes. Each caller sees the jobs of its project."""
    router = APIRouter()
    here = _Here(catalogue, store, tuning)
    _add_creation(router, here, max_bytes=max_body_bytes, seconds=body_seconds)
    _add_jobs(router, here)
    _add_course(router, here)
    _add_deletion(router, here)
    return router


@dataclass(frozen=True, slots=True)
class _Here:
    """What the routes stand on. tuning: None where nothing is trained."""

    catalogue: Catalogue
    store: Store
    tuning: Tuning | None

    def mine(self, request: Request) -> Store:
        """The store as the caller's project sees it."""
        return self.store.of(caller_of(request).project)

    async def change(self, request: Request, job_id: str, wish: Callable[[Store, str], Job]) -> JSONResponse:
        """Change what is wanted of a job; its runner looks at once."""
        job = await asyncio.to_thread(wish, self.mine(request), job_id)
        if self.tuning is not None:
            self.tuning.runner.wake()
        return JSONResponse(job_to_openai(job))


def _add_creation(router: APIRouter, here: _Here, *, max_bytes: int, seconds: float) -> None:
    @router.post("/v1/fine_tuning/jobs", openapi_extra=described(CreateJob))
    async def create_fine_tuning_job(request: Request) -> JSONResponse:
        """Train a model on a file; it waits its turn, and is served as soon as it is done."""
        body = await read_json(request, max_bytes=max_bytes, seconds=seconds)
        asked = parse(CreateJob, body)
        if here.tuning is None:
            raise UnsupportedError("this server trains no models: start it with `dialoop serve`")
        if asked.integrations:
            raise UnsupportedError(
                "integrations are not supported: the job's events and result file hold every step's metrics",
                param="integrations",
            )
        job = await asyncio.to_thread(
            _create, here.mine(request), here.tuning, asked, here.catalogue.models()
        )
        here.tuning.runner.wake()
        return JSONResponse(job_to_openai(job))


def _add_jobs(router: APIRouter, here: _Here) -> None:
    @router.get("/v1/fine_tuning/jobs")
    async def list_fine_tuning_jobs(request: Request, query: Annotated[JobsQuery, Query()]) -> dict[str, Any]:
        """The project's jobs."""
        jobs, pairs = here.mine(request).jobs, query.metadata
        page = await asyncio.to_thread(jobs.list, query.window, model=query.model, metadata=pairs)
        return page_to_openai(page, job_to_openai)

    @router.get("/v1/fine_tuning/jobs/{job_id}")
    async def retrieve_fine_tuning_job(request: Request, job_id: str) -> dict[str, Any]:
        """One job."""
        return job_to_openai(await asyncio.to_thread(here.mine(request).jobs.get, job_id))

    @router.post("/v1/fine_tuning/jobs/{job_id}/cancel")
    async def cancel_fine_tuning_job(request: Request, job_id: str) -> JSONResponse:
        """End a job for good; its checkpoints stay."""
        return await here.change(request, job_id, _cancel)

    @router.post("/v1/fine_tuning/jobs/{job_id}/pause")
    async def pause_fine_tuning_job(request: Request, job_id: str) -> JSONResponse:
        """Have a job finish its update, save and wait."""
        return await here.change(request, job_id, _pause)

    @router.post("/v1/fine_tuning/jobs/{job_id}/resume")
    async def resume_fine_tuning_job(request: Request, job_id: str) -> JSONResponse:
        """Let a paused job go on where it was."""
        return await here.change(request, job_id, _resume)


def _add_course(router: APIRouter, here: _Here) -> None:
    @router.get("/v1/fine_tuning/jobs/{job_id}/events", response_model=None)
    async def list_fine_tuning_events(
        request: Request, job_id: str, query: Annotated[EventsQuery, Query()]
    ) -> Response:
        """What happened in a job, the newest first; or as it happens."""
        jobs = here.mine(request).jobs
        if query.stream:
            await asyncio.to_thread(jobs.get, job_id)
            return EventStream(_live(here.mine(request), job_id))
        page = await asyncio.to_thread(jobs.events, job_id, query.window)
        return JSONResponse(page_to_openai(page, event_to_openai))

    @router.get("/v1/fine_tuning/jobs/{job_id}/checkpoints")
    async def list_fine_tuning_job_checkpoints(
        request: Request, job_id: str, query: Annotated[CheckpointsQuery, Query()]
    ) -> dict[str, Any]:
        """The models that a job left after its epochs; each answers under its name."""
        page = await asyncio.to_thread(here.mine(request).jobs.checkpoints, job_id, query.window)
        return page_to_openai(page, lambda checkpoint: checkpoint_to_openai(checkpoint, job_id))


def _add_deletion(router: APIRouter, here: _Here) -> None:
    @router.delete("/v1/models/{model:path}")
    async def delete_model(request: Request, model: str) -> dict[str, Any]:
        """Delete a fine-tuned model and its files; answers that have begun are finished."""
        known = [each.name for each in here.catalogue.models()]
        await asyncio.to_thread(_delete, here.mine(request), model, known)
        if here.tuning is not None:
            here.tuning.models.withdraw(model)
        return {"id": model, "object": "model", "deleted": True}


def _create(store: Store, tuning: Tuning, asked: CreateJob, models: Sequence[Served]) -> Job:
    hyperparameters, settings = asked.asked, asked.settings
    answering = [each.name for each in models if each.kind == "decoder"]
    learnable = answering if settings.get("kind", "tune") == "tune" else [each.name for each in models]
    base = _base(store, tuning, asked.model, learnable)
    for param, file_id in (
        ("training_file", asked.training_file),
        ("validation_file", asked.validation_file),
    ):
        if file_id is not None:
            _check_file(store, param, file_id)
    objective = settings.get("objective") or {}
    if isinstance(teacher := objective.get("teacher"), str):
        found = _base(store, tuning, teacher, answering, param="dialoop")
        settings["objective"] = {**objective, "teacher": store.models.name_of(found)}
    try:
        tuning.runner.check(asked.kind, hyperparameters, settings, base)
    except ConfigError as error:
        raise HttpError(400, str(error), param="dialoop") from None
    return store.jobs.create(
        model=asked.model, base=store.models.name_of(base), training_file=asked.training_file,
        validation_file=asked.validation_file, suffix=asked.suffix, seed=asked.chosen_seed,
        method=asked.kind, hyperparameters=hyperparameters, settings=settings,
        metadata=asked.metadata,
    )  # fmt: skip


def _base(store: Store, tuning: Tuning, model: str, known: Sequence[str], param: str = "model") -> ModelRef:
    """Where a model that the caller knows of lies. Raises UnknownModelError, and HttpError for others."""
    if model not in known:
        raise UnknownModelError(model, known)
    if model in tuning.bases:
        return tuning.bases[model]
    if model.startswith("ft:"):
        return replace(store.models.resolve(model), name=model)
    raise HttpError(
        400, f"model {echo(model)} was loaded by request and is not kept here: name one that was served from "
        f"the start, or a fine-tuned one", param=param,
    )  # fmt: skip


def _check_file(store: Store, param: str, file_id: str) -> None:
    try:
        purpose = store.files.get(file_id).purpose
    except UnknownRecordError as error:
        raise HttpError(400, f"{param}: {error}", param=param, code="file_not_found") from None
    if purpose != "fine-tune":
        raise HttpError(
            400, f"{param} has purpose {purpose!r}, expected 'fine-tune': upload it again with that purpose",
            param=param,
        )  # fmt: skip


def _cancel(store: Store, job_id: str) -> Job:
    ended = {"status": "cancelled", "finished": now_micros(), "estimated_finish": None}
    return _moved(store, job_id, OPEN, "cancelled", "The job was cancelled", **ended)


def _pause(store: Store, job_id: str) -> Job:
    running: tuple[Status, ...] = ("validating_files", "queued", "running")
    return _moved(
        store, job_id, running, "paused", "The job was paused", status="paused", estimated_finish=None
    )


def _resume(store: Store, job_id: str) -> Job:
    status = "validating_files" if store.jobs.get(job_id).recipe is None else "queued"
    return _moved(store, job_id, ("paused",), "resumed", "The job was resumed", status=status)


def _moved(store: Store, job_id: str, among: Sequence[Status], verb: str, told: str, **values: Any) -> Job:
    job = store.jobs.change(job_id, among, [NewEvent(told)], **values)
    if job is None:
        status = store.jobs.get(job_id).status
        raise HttpError(
            400, f"a job that is {status} cannot be {verb}: only one that is {' or '.join(among)}",
            code="invalid_job_status",
        )  # fmt: skip
    return job


def _delete(store: Store, model: str, known: Sequence[str]) -> None:
    if model.startswith("ft:") and model in known:
        try:
            if jobs := store.jobs.beginning_with(store.models.get(model).ref):
                raise StoreError(f"{model} is trained on by {', '.join(jobs)}: wait, or cancel it first")
            store.models.remove(model)
        except StoreError as error:
            raise HttpError(409, str(error), param="model", headers={"x-should-retry": "false"}) from None
        store.jobs.drop_checkpoint(model)
    elif model in known:
        raise HttpError(
            403, f"model {echo(model)} is a part of this server: only fine-tuned models can be deleted",
            param="model",
        )  # fmt: skip
    else:
        raise UnknownModelError(model, known)


async def _live(store: Store, job_id: str) -> AsyncGenerator[bytes, None]:
    """All events, in order, to the end of the job."""
    seq = 0
    while True:
        job = await asyncio.to_thread(store.jobs.get, job_id)
        for event in await asyncio.to_thread(store.jobs.events_after, job_id, seq):
            yield f"data: {json.dumps(event_to_openai(event), ensure_ascii=False)}\n\n".encode()
            seq = event.seq
        if job.status not in OPEN:
            break
        await asyncio.sleep(LIVE_SECONDS)
    yield b"data: [DONE]\n\n"
