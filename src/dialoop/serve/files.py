"""/v1/files."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from dialoop.data.training_file import check_training_file
from dialoop.errors import DataError, UnknownRecordError, echo, nearest
from dialoop.serve.batch_lines import ENDPOINTS, check_lines
from dialoop.serve.caller import caller_of
from dialoop.serve.connection import ByteStream
from dialoop.serve.errors import HttpError
from dialoop.serve.multipart import Form, read_form
from dialoop.serve.paging import ListQuery, list_schema, page_to_openai
from dialoop.store.files import File, Files, Purpose, UploadPurpose
from dialoop.store.registry import Store
from dialoop.store.uploads import Uploads

READ_BYTES = 1 << 20
LIVES = range(3600, 2_592_000 + 1)
"""Seconds that a file may be asked to be kept, as at OpenAI."""


class FileObject(BaseModel):
    """A file."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    """Unix seconds."""
    expires_at: int | None = None
    """Unix seconds; null = kept until it is deleted."""
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"
    """Files are checked while they are uploaded, so there is no other."""
    status_details: str | None = None


class FileDeleted(BaseModel):
    """What is told of a file that was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FilesQuery(ListQuery):
    """The query of GET /v1/files."""

    limit: int = Field(10_000, ge=1, le=10_000)
    """Most objects to give."""
    purpose: Purpose | None = None
    """Only files of this purpose."""


_BINARY = {"type": "string", "format": "binary"}
FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {**_BINARY, "description": "The bytes; JSONL in UTF-8 for fine-tune and batch."},
        "purpose": {"enum": list(get_args(UploadPurpose)), "description": "What the file is for."},
        "expires_after[anchor]": {"enum": ["created_at"], "description": "Counted from when it was made."},
        "expires_after[seconds]": {
            "type": "integer", "minimum": LIVES[0], "maximum": LIVES[-1],
            "description": "How long the file is kept; absent = until it is deleted, 30 days for a batch.",
        },
    },
}  # fmt: skip
"""Of the form that is uploaded."""


def multipart_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads a form."""
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def file_routes(store: Store, *, max_file_bytes: int, body_seconds: float) -> APIRouter:
    """The routes over the files of `store`; each caller sees those of its project."""
    router = APIRouter(prefix="/v1/files")

    def files_of(request: Request) -> Files:
        return store.of(caller_of(request).project).files

    @router.post("", openapi_extra=multipart_schema(FORM))
    async def create_file(request: Request) -> FileObject:
        """Upload a file. Every row of one to fine-tune on or to run as a batch is checked."""
        files = files_of(request)
        async with staging(files) as folder:
            form = await read_form(
                request, folder / "file", file_field="file", max_bytes=max_file_bytes, seconds=body_seconds,
                fields=("purpose", "expires_after[anchor]", "expires_after[seconds]"),
            )  # fmt: skip
            purpose, seconds = purpose_of(form.fields.get("purpose")), _seconds(form)
            if form.filename is None:
                raise HttpError(400, "file has no filename: send the part as a file", param="file")
            made = await asyncio.to_thread(
                adopt_checked, files, folder / "file", form.filename, purpose, seconds
            )
        return file_to_openai(made)

    @router.get("", responses=list_schema(FileObject))
    async def list_files(request: Request, query: Annotated[FilesQuery, Query()]) -> dict[str, Any]:
        """The project's files."""
        page = await asyncio.to_thread(files_of(request).list, query.window, purpose=query.purpose)
        return page_to_openai(page, lambda file: file_to_openai(file).model_dump())

    @router.get("/{file_id}")
    async def retrieve_file(request: Request, file_id: str) -> FileObject:
        """One file."""
        return file_to_openai(await asyncio.to_thread(files_of(request).get, file_id))

    @router.delete("/{file_id}")
    async def delete_file(request: Request, file_id: str) -> FileDeleted:
        """Delete a file. Jobs and batches that were begun with it go on: they keep its bytes."""
        await asyncio.to_thread(files_of(request).delete, file_id)
        return FileDeleted(id=file_id)

    content: dict[int | str, dict[str, Any]] = {
        200: {"description": "The bytes.", "content": {"application/octet-stream": {"schema": _BINARY}}}
    }

    @router.get("/{file_id}/content", responses=content, response_class=Response)
    async def retrieve_file_content(request: Request, file_id: str) -> Response:
        """The bytes of a file, as they were uploaded."""
        files = files_of(request)
        file = await asyncio.to_thread(files.get, file_id)
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(file.bytes),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
            "x-content-type-options": "nosniff",
        }
        return ByteStream(_bytes_of(files.root / file.id, file_id), headers)

    return router


@asynccontextmanager
async def staging(kind: Files | Uploads) -> AsyncGenerator[Path, None]:
    """Its `staged`, off the event loop."""
    place = kind.staged()
    folder = await asyncio.to_thread(place.__enter__)
    try:
        yield folder
    finally:
        await asyncio.to_thread(place.__exit__, None, None, None)


def purpose_of(given: Any) -> UploadPurpose:
    """Raises HttpError for a purpose that nothing is uploaded for."""
    known: tuple[UploadPurpose, ...] = get_args(UploadPurpose)
    if given is None:
        raise HttpError(400, f"purpose is missing: add one of {', '.join(known)}", param="purpose")
    for purpose in known:
        if given == purpose:
            return purpose
    close = nearest(str(given)[:64], known)
    raise HttpError(
        400, f"purpose = {echo(given)} is none that files are uploaded for{close}", param="purpose"
    )


def _seconds(form: Form) -> int | None:
    anchor, seconds = (form.fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise HttpError(
            400, f"expires_after.anchor = {echo(anchor)}: expected 'created_at'", param="expires_after.anchor"
        )
    if seconds is None or not re.fullmatch(r"[0-9]{1,9}", seconds) or int(seconds) not in LIVES:
        raise HttpError(
            400, f"expires_after.seconds = {echo(seconds)}: expected {LIVES[0]} to {LIVES[-1]}",
            param="expires_after.seconds",
        )  # fmt: skip
    return int(seconds)


def adopt_checked(
    files: Files, path: Path, filename: str, purpose: str, seconds: int | None, file_id: str | None = None
) -> File:
    """Take an uploaded file in. Raises HttpError with the first line at fault of one that has rows."""
    try:
        if purpose == "fine-tune":
            check_training_file(path)
        if purpose == "batch" and (problems := check_lines(path, ENDPOINTS, most_problems=1).problems):
            raise DataError(str(problems[0]))
    except DataError as error:
        raise HttpError(400, str(error), param="file", code="invalid_file_format") from None
    return files.adopt(path, filename=filename, purpose=purpose, seconds=seconds, file_id=file_id)


def file_to_openai(file: File) -> FileObject:
    """The file object."""
    return FileObject(
        id=file.id, bytes=file.bytes, created_at=file.created // 1_000_000, filename=file.filename,
        purpose=file.purpose, expires_at=None if file.expires is None else file.expires // 1_000_000,
    )  # fmt: skip


async def _bytes_of(path: Path, file_id: str) -> AsyncGenerator[bytes, None]:
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError:
        raise UnknownRecordError("file", file_id) from None
    with file:
        while chunk := await asyncio.to_thread(file.read, READ_BYTES):
            yield chunk
