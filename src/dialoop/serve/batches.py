"""/v1/batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dialoop.errors import StoreError, UnknownRecordError, echo
from dialoop.serve.batch_lines import ENDPOINTS
from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.errors import HttpError
from dialoop.serve.fields import Metadata
from dialoop.serve.paging import ListQuery, list_schema, page_to_openai
from dialoop.serve.typed_body import ExpiresAfter, described, parsed
from dialoop.store.batches import Batch, BatchStatus
from dialoop.store.registry import Store

MOST_HOURS = 720


class BatchBody(BaseModel):
    """The body of POST /v1/batches."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    input_file_id: str
    """A file of purpose `batch`."""
    endpoint: str = Field(json_schema_extra={"enum": list(ENDPOINTS)})
    """What all lines ask."""
    completion_window: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,2}h$")]
    """`24h`, or other hours up to `720h`; what is not answered by then is not asked any more."""
    metadata: Metadata = Field({})
    """Kept with the batch."""
    output_expires_after: ExpiresAfter | None = None
    """How long the output files are kept; absent = until they are deleted."""


class BatchCounts(BaseModel):
    """Requests."""

    total: int
    completed: int
    failed: int


class BatchError(BaseModel):
    """Why a batch failed."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    """The first problems of a batch that failed."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchObject(BaseModel):
    """A batch. Times are Unix seconds."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    """Of all lines; null where they name several, or are not read yet."""
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    usage: dict[str, Any]
    metadata: dict[str, str] | None


def batch_routes(
    store: Store,
    wake: Callable[[], None],
    has: Callable[[str], bool],
    *,
    max_body_bytes: int,
    body_seconds: float,
) -> APIRouter:
    """The routes. wake: tells whoever runs the batches.  has: knows the routes that there are."""
    router = APIRouter(prefix="/v1/batches")

    def mine(request: Request) -> Store:
        return store.of(caller_of(request).project)

    @router.post("", openapi_extra=described(BatchBody))
    async def create_batch(request: Request) -> BatchObject:
        """Answer the requests of a file, beside those of clients."""
        body = parsed(BatchBody, await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds))
        known = [path for path in ENDPOINTS if has(path)]
        if body.endpoint not in known:
            raise HttpError(
                400, f"endpoint = {echo(body.endpoint)}: expected one of {', '.join(known)}", param="endpoint"
            )
        made = await asyncio.to_thread(_create, mine(request), body, caller_of(request).key)
        wake()
        return batch_to_openai(made)

    @router.get("", responses=list_schema(BatchObject))
    async def list_batches(request: Request, query: Annotated[ListQuery, Query()]) -> dict[str, Any]:
        """The project's batches."""
        page = await asyncio.to_thread(mine(request).batches.list, query.window)
        return page_to_openai(page, lambda batch: batch_to_openai(batch).model_dump())

    @router.get("/{batch_id}")
    async def retrieve_batch(request: Request, batch_id: str) -> BatchObject:
        """One batch, and how far it is."""
        return batch_to_openai(await asyncio.to_thread(mine(request).batches.get, batch_id))

    @router.post("/{batch_id}/cancel")
    async def cancel_batch(request: Request, batch_id: str) -> BatchObject:
        """End a batch; what was answered is in its output file."""
        try:
            batch = await asyncio.to_thread(mine(request).batches.cancel, batch_id)
        except UnknownRecordError:
            raise
        except StoreError as error:
            raise HttpError(400, str(error), param="id") from None
        wake()
        return batch_to_openai(batch)

    return router


def _create(store: Store, body: BatchBody, key: str | None) -> Batch:
    hours = int(body.completion_window[:-1])
    if hours > MOST_HOURS:
        raise HttpError(
            400, f"completion_window = {echo(body.completion_window)}: expected at most '{MOST_HOURS}h'",
            param="completion_window",
        )  # fmt: skip
    try:
        purpose = store.files.get(body.input_file_id).purpose
        if purpose != "batch":
            raise HttpError(
                400, f"input_file_id: the file is for {purpose}: upload it with purpose 'batch'",
                param="input_file_id",
            )  # fmt: skip
        return store.batches.create(
            input_file_id=body.input_file_id, endpoint=body.endpoint, window=body.completion_window,
            seconds=hours * 3600, key_id=key, metadata=body.metadata,
            output_seconds=body.output_expires_after.seconds if body.output_expires_after else None,
        )  # fmt: skip
    except UnknownRecordError as error:
        raise HttpError(400, f"input_file_id: {error}", param="input_file_id") from None


def batch_to_openai(batch: Batch) -> BatchObject:
    """The batch object."""
    statuses = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    times = {
        f"{status}_at": batch.times[status] // 1_000_000 if status in batch.times else None
        for status in statuses
    }
    errors = BatchErrors(data=[BatchError(**row) for row in batch.errors]) if batch.errors else None
    files = {"output_file_id": batch.output_file_id, "error_file_id": batch.error_file_id}
    return BatchObject(
        id=batch.id, endpoint=batch.endpoint, errors=errors, input_file_id=batch.input_file_id,
        model=batch.models[0] if len(batch.models) == 1 else None, status=batch.status,
        completion_window=batch.completion_window, created_at=batch.created // 1_000_000,
        expires_at=batch.expires // 1_000_000, metadata=dict(batch.metadata) or None, usage=_usage(batch),
        request_counts=BatchCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        **times, **(files if batch.ended else dict.fromkeys(files)),
    )  # fmt: skip


def _usage(batch: Batch) -> dict[str, Any]:
    tokens = {name: batch.usage.get(name, 0) for name in ("input", "cached", "output", "reasoning")}
    return {
        "input_tokens": tokens["input"],
        "input_tokens_details": {"cached_tokens": tokens["cached"]},
        "output_tokens": tokens["output"],
        "output_tokens_details": {"reasoning_tokens": tokens["reasoning"]},
        "total_tokens": tokens["input"] + tokens["output"],
    }
