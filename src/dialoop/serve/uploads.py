"""/v1/uploads: large files in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dialoop.errors import StoreError, UnknownRecordError, echo
from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.errors import HttpError
from dialoop.serve.files import FileObject, adopt_checked, file_to_openai, multipart_schema, staging
from dialoop.serve.multipart import plain_filename, read_form
from dialoop.serve.typed_body import ExpiresAfter, described, parsed
from dialoop.store.files import File, UploadPurpose
from dialoop.store.registry import Store
from dialoop.store.uploads import Upload, UploadStatus

T = TypeVar("T")
PART_BYTES = 64 * 2**20
"""Most of one part, as at OpenAI."""


class UploadBody(BaseModel):
    """The body of POST /v1/uploads."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    filename: str = Field(min_length=1, max_length=255)
    """What the file is called."""
    bytes: int = Field(ge=1)
    """How many it has."""
    mime_type: str = Field(min_length=1, max_length=255)
    """Kept; not used."""
    purpose: UploadPurpose
    """What the file is for."""
    expires_after: ExpiresAfter | None = None
    """How long the file is kept; absent = until it is deleted, 30 days for a batch."""


class CompleteBody(BaseModel):
    """The body of POST /v1/uploads/{id}/complete."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    part_ids: list[str] = Field(min_length=1, max_length=100_000)
    """All parts, in the order of the file."""
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$")] | None = None
    """Of the whole file, to be compared."""


class UploadObject(BaseModel):
    """An upload."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: UploadStatus
    file: FileObject | None = None


class PartObject(BaseModel):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


PART = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "format": "binary", "description": "At most 64 MiB."}},
}


def upload_routes(
    store: Store, *, max_file_bytes: int, max_body_bytes: int, body_seconds: float
) -> APIRouter:
    """The routes. An upload of which the last part or the completion fails can be gone on with."""
    router = APIRouter(prefix="/v1/uploads")

    def mine(request: Request) -> Store:
        return store.of(caller_of(request).project)

    @router.post("", openapi_extra=described(UploadBody))
    async def create_upload(request: Request) -> UploadObject:
        """Announce a file that comes in parts, within an hour."""
        body = parsed(UploadBody, await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds))
        if body.bytes > max_file_bytes:
            raise HttpError(
                400, f"bytes = {body.bytes}: files have at most {max_file_bytes} here, see --max-file-bytes",
                param="bytes",
            )  # fmt: skip
        seconds = body.expires_after.seconds if body.expires_after else None
        made = await asyncio.to_thread(
            mine(request).uploads.create, filename=plain_filename(body.filename), purpose=body.purpose,
            mime_type=body.mime_type, size=body.bytes, seconds=seconds,
        )  # fmt: skip
        return upload_to_openai(made)

    @router.post("/{upload_id}/parts", openapi_extra=multipart_schema(PART))
    async def add_upload_part(request: Request, upload_id: str) -> PartObject:
        """Send some of the bytes; several parts may be sent side by side."""
        uploads = mine(request).uploads
        await asyncio.to_thread(uploads.get, upload_id)
        async with staging(uploads) as folder:
            await read_form(
                request, folder / "part", file_field="data", max_bytes=min(PART_BYTES, max_file_bytes),
                seconds=body_seconds,
            )  # fmt: skip
            part = await asyncio.to_thread(_told, "data", lambda: uploads.add(upload_id, folder / "part"))
        return PartObject(id=part.id, created_at=part.created // 1_000_000, upload_id=upload_id)

    @router.post("/{upload_id}/complete", openapi_extra=described(CompleteBody))
    async def complete_upload(request: Request, upload_id: str) -> UploadObject:
        """Make a file of the parts; it appears whole or not at all."""
        body = parsed(CompleteBody, await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds))
        mine_now = mine(request)
        async with staging(mine_now.files) as folder:
            ended, file = await asyncio.to_thread(_complete, mine_now, upload_id, body, folder / "file")
        return upload_to_openai(ended, file)

    @router.post("/{upload_id}/cancel")
    async def cancel_upload(request: Request, upload_id: str) -> UploadObject:
        """Give an upload up; its parts are deleted."""
        uploads = mine(request).uploads
        return upload_to_openai(
            await asyncio.to_thread(_told, "id", lambda: uploads.finish(upload_id, "cancelled"))
        )

    return router


def _complete(store: Store, upload_id: str, body: CompleteBody, target: Path) -> tuple[Upload, File]:
    upload = store.uploads.get(upload_id)
    found = _told("part_ids", lambda: store.uploads.assemble(upload_id, body.part_ids, target))
    if body.md5 is not None and body.md5.lower() != found:
        raise HttpError(
            400, f"md5 = {echo(body.md5)}: the parts have {found}: send what was damaged again", param="md5"
        )
    made = adopt_checked(
        store.files, target, upload.filename, upload.purpose, upload.seconds, file_id=upload.file_id
    )
    return _told("id", lambda: store.uploads.finish(upload_id, "completed")), made


def _told(param: str, work: Callable[[], T]) -> T:
    """What the store refuses is the client's to mend."""
    try:
        return work()
    except UnknownRecordError:
        raise
    except StoreError as error:
        raise HttpError(400, str(error), param=param) from None


def upload_to_openai(upload: Upload, file: File | None = None) -> UploadObject:
    """The upload object."""
    return UploadObject(
        id=upload.id, bytes=upload.bytes, created_at=upload.created // 1_000_000,
        expires_at=upload.expires // 1_000_000, filename=upload.filename, purpose=upload.purpose,
        status=upload.status, file=None if file is None else file_to_openai(file),
    )  # fmt: skip
