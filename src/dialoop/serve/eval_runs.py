"""/v1/evals/ID/runs: a model over rows, and what came of each."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from dialoop.errors import DataError, UnknownModelError, UnknownRecordError, UnsupportedError
from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.errors import HttpError
from dialoop.serve.eval_rows import rows_of
from dialoop.serve.eval_runner import EvalRunner
from dialoop.serve.eval_wire import (
    Completions,
    CreateRun,
    FileContent,
    FileId,
    Jsonl,
    Stored,
    item_to_openai,
    run_to_openai,
)
from dialoop.serve.fine_tuning_wire import parse
from dialoop.serve.paging import ListQuery, page_to_openai
from dialoop.serve.typed_body import described
from dialoop.store.evals import UNENDED, Eval, EvalRun, Evals
from dialoop.store.identity import new_id
from dialoop.store.registry import Store
from dialoop.types import Catalogue


class RunsQuery(ListQuery):
    """The query of the runs of an evaluation."""

    order: Literal["asc", "desc"] = "asc"
    """By time of making."""
    status: Literal["queued", "in_progress", "completed", "canceled", "failed"] | None = None
    """Only those."""


class ItemsQuery(ListQuery):
    """The query of the output items of a run."""

    order: Literal["asc", "desc"] = "asc"
    """By time of making."""
    status: Literal["fail", "pass", "error"] | None = None
    """Only those."""


def eval_run_routes(
    catalogue: Catalogue, store: Store, runner: EvalRunner, *, max_body_bytes: int, body_seconds: float
) -> APIRouter:
    """The routes of runs. Each caller sees those of its project."""
    router = APIRouter(prefix="/v1/evals")

    def mine(request: Request) -> Evals:
        return store.of(caller_of(request).project).evals

    def told(evals: Evals, run: EvalRun) -> dict[str, Any]:
        return run_to_openai(run, evals.counts(run.id))

    @router.post("/{eval_id}/runs", openapi_extra=described(CreateRun), status_code=201)
    async def create_eval_run(request: Request, eval_id: str) -> JSONResponse:
        """Have a model answer rows and grade its answers, or grade what is there."""
        asked = parse(CreateRun, await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds))
        models = [each.name for each in catalogue.models() if each.kind == "decoder"]
        caller = caller_of(request)
        own = store.of(caller.project)
        run = await asyncio.to_thread(_start, own, runner, eval_id, asked, models, caller.key)
        runner.wake()
        return JSONResponse(run_to_openai(run, {}), 201)

    @router.get("/{eval_id}/runs")
    async def list_eval_runs(
        request: Request, eval_id: str, query: Annotated[RunsQuery, Query()]
    ) -> dict[str, Any]:
        """The runs of an evaluation."""
        evals = mine(request)
        page = await asyncio.to_thread(evals.runs, eval_id, query.window, query.status)
        return await asyncio.to_thread(page_to_openai, page, lambda run: told(evals, run))

    @router.get("/{eval_id}/runs/{run_id}")
    async def retrieve_eval_run(request: Request, eval_id: str, run_id: str) -> dict[str, Any]:
        """One run, with its counts."""
        evals = mine(request)
        return await asyncio.to_thread(lambda: told(evals, evals.run(eval_id, run_id)))

    @router.post("/{eval_id}/runs/{run_id}")
    async def cancel_eval_run_at_its_own_path(request: Request, eval_id: str, run_id: str) -> dict[str, Any]:
        """Cancel a run: OpenAI's document puts it here, its client below."""
        return await cancel_eval_run(request, eval_id, run_id)

    @router.post("/{eval_id}/runs/{run_id}/cancel")
    async def cancel_eval_run(request: Request, eval_id: str, run_id: str) -> dict[str, Any]:
        """End a run; what was graded stays."""
        evals = mine(request)
        run = await asyncio.to_thread(_cancel, evals, eval_id, run_id)
        runner.wake()
        return await asyncio.to_thread(told, evals, run)

    @router.delete("/{eval_id}/runs/{run_id}")
    async def delete_eval_run(request: Request, eval_id: str, run_id: str) -> dict[str, Any]:
        """Delete a run and its items."""
        await asyncio.to_thread(mine(request).delete_run, eval_id, run_id)
        runner.wake()
        return {"object": "eval.run.deleted", "deleted": True, "run_id": run_id}

    return router


def eval_item_routes(store: Store) -> APIRouter:
    """The routes of what came of each row of a run."""
    router = APIRouter(prefix="/v1/evals")

    def mine(request: Request) -> Evals:
        return store.of(caller_of(request).project).evals

    @router.get("/{eval_id}/runs/{run_id}/output_items")
    async def list_output_items(
        request: Request, eval_id: str, run_id: str, query: Annotated[ItemsQuery, Query()]
    ) -> dict[str, Any]:
        """What came of each row."""
        evals = mine(request)
        run = await asyncio.to_thread(evals.run, eval_id, run_id)
        page = await asyncio.to_thread(evals.items, run.id, query.window, query.status)
        return page_to_openai(page, lambda item: item_to_openai(item, eval_id))

    @router.get("/{eval_id}/runs/{run_id}/output_items/{item_id}")
    async def retrieve_output_item(
        request: Request, eval_id: str, run_id: str, item_id: str
    ) -> dict[str, Any]:
        """What came of one row."""
        evals = mine(request)
        run = await asyncio.to_thread(evals.run, eval_id, run_id)
        return item_to_openai(await asyncio.to_thread(evals.item, run.id, item_id), eval_id)

    return router


def _start(
    store: Store, runner: EvalRunner, eval_id: str, asked: CreateRun, models: list[str], key: str | None
) -> EvalRun:
    """A new run of rows that have been read once. Raises HttpError or UnknownModelError."""
    found, source = store.evals.get(eval_id), asked.data_source
    _check_source(source, models)
    run_id = new_id("evalrun_")
    try:
        runner.prepare(store, run_id, source)
        _check_rows(store, source, runner.folder(run_id), found)
    except (UnknownRecordError, DataError) as error:
        shutil.rmtree(runner.folder(run_id), ignore_errors=True)
        code = "file_not_found" if isinstance(error, UnknownRecordError) else "invalid_data"
        raise HttpError(400, f"data_source.source: {error}", param="data_source.source", code=code) from None
    return store.evals.start(
        eval_id, run_id, asked.name or found.name, getattr(source, "model", None) or "",
        source.model_dump(exclude_none=True), asked.metadata, key,
    )  # fmt: skip


def _check_source(source: Jsonl | Completions, models: list[str]) -> None:
    if isinstance(source, Jsonl):
        return
    if source.model is None and not isinstance(source.source, Stored):
        raise HttpError(
            400, "data_source.model is missing: name a model, or grade rows as they are with type jsonl",
            param="data_source.model",
        )  # fmt: skip
    if source.model is not None and source.model not in models:
        raise UnknownModelError(source.model, models)
    if source.model is not None and source.input_messages is None and not isinstance(source.source, Stored):
        raise HttpError(
            400, "data_source.input_messages is missing: say what is asked, as template or item_reference",
            param="data_source.input_messages",
        )  # fmt: skip
    for name in source.sampling_params.keys() & {"stream", "messages", "model", "n", "store"}:
        raise UnsupportedError(
            f"data_source.sampling_params.{name} is not for evaluations: leave it out",
            param=f"data_source.sampling_params.{name}",
        )


def _check_rows(store: Store, source: Jsonl | Completions, folder: Path, found: Eval) -> None:
    """Raises DataError for the first row that lacks what the evaluation's schema requires."""
    if not isinstance(source.source, FileId | FileContent):
        return
    schema = found.data_source_config["schema"]["properties"]["item"]
    required = [name for name in schema.get("required") or [] if isinstance(name, str)]
    count = 0
    for count, row in enumerate(rows_of(store, source, folder), 1):
        for name in required:
            if name not in row.item:
                raise DataError(f"row {count} has no {name[:64]!r}, which the item_schema requires")
    if not count:
        raise DataError('there are no rows: give one a line, as {"item": {...}}')


def _cancel(evals: Evals, eval_id: str, run_id: str) -> EvalRun:
    run = evals.run(eval_id, run_id)
    if not evals.change_run(run.id, UNENDED, status="canceled"):
        raise HttpError(400, f"a run that is {run.status} cannot be canceled", code="invalid_run_status")
    return evals.run(eval_id, run_id)
