"""Stored completions: GET, POST and DELETE below /v1/chat/completions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from dialoop.errors import echo
from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.errors import HttpError
from dialoop.serve.fields import Metadata
from dialoop.serve.keeper import Keeper
from dialoop.serve.paging import ListQuery, list_schema, page_to_openai, window_over
from dialoop.serve.typed_body import described, parsed
from dialoop.store.stored import StoredCompletion, StoredCompletions

_METADATA_KEY = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
_DEFAULTS: Mapping[str, Any] = {
    "temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": None,
    "tools": None, "tool_choice": None, "response_format": None,
}  # fmt: skip


class OldestFirst(ListQuery):
    """The query of a list in the order of its making."""

    order: Literal["asc", "desc"] = "asc"
    """By time of making."""


class StoredQuery(OldestFirst):
    """The query of GET /v1/chat/completions; `metadata[key]=value` asks for those that have it."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    model: str | None = None
    """Only those of this model."""

    @property
    def metadata(self) -> dict[str, str]:
        """What is asked of the metadata. Raises HttpError for other parameters."""
        found: dict[str, str] = {}
        for name, value in (self.model_extra or {}).items():
            key = _METADATA_KEY.fullmatch(name)
            if key is None:
                raise HttpError(400, f"{echo(name)}: no such parameter: see /openapi.json", param=name[:64])
            found[key[1]] = str(value)
        return found


class StoredBody(BaseModel):
    """The body of POST /v1/chat/completions/{id}."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    metadata: Metadata = Field({})
    """Takes the place of all metadata; absent or null = none."""


class StoredObject(BaseModel):
    """A chat completion as it was answered, with the parameters of its request."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None
    metadata: dict[str, str]
    input_user: str | None = None
    """The `user` of the request."""


class StoredMessage(BaseModel):
    """A message of the request."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    id: str
    role: str
    content: str | None = None
    content_parts: list[dict[str, Any]] | None = None
    """As they were sent, where the content came in parts; `content` is their text."""
    name: str | None = None


class StoredDeleted(BaseModel):
    """What is told of a stored completion that was deleted."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: Literal[True] = True


def stored_routes(keeper: Keeper, *, max_body_bytes: int, body_seconds: float) -> APIRouter:
    """The routes; they see all that was answered before them."""
    router = APIRouter(prefix="/v1/chat/completions")

    async def mine(request: Request) -> StoredCompletions:
        return (await keeper.reading(caller_of(request).project)).stored

    @router.get("", responses=list_schema(StoredObject))
    async def list_stored_completions(
        request: Request, query: Annotated[StoredQuery, Query()]
    ) -> dict[str, Any]:
        """The project's completions that were answered with `store`."""
        wanted, found = query.metadata, await mine(request)
        page = await asyncio.to_thread(found.list, query.window, model=query.model, metadata=wanted)
        return page_to_openai(page, stored_to_openai)

    @router.get("/{completion_id}", responses={200: {"model": StoredObject}})
    async def retrieve_stored_completion(request: Request, completion_id: str) -> dict[str, Any]:
        """One stored completion."""
        return stored_to_openai(await asyncio.to_thread((await mine(request)).get, completion_id))

    @router.post(
        "/{completion_id}", openapi_extra=described(StoredBody), responses={200: {"model": StoredObject}}
    )
    async def update_stored_completion(request: Request, completion_id: str) -> dict[str, Any]:
        """Replace the metadata of one."""
        body = parsed(StoredBody, await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds))
        found = await mine(request)
        return stored_to_openai(await asyncio.to_thread(found.update, completion_id, body.metadata))

    @router.delete("/{completion_id}")
    async def delete_stored_completion(request: Request, completion_id: str) -> StoredDeleted:
        """Delete one."""
        await asyncio.to_thread((await mine(request)).delete, completion_id)
        return StoredDeleted(id=completion_id)

    @router.get("/{completion_id}/messages", responses=list_schema(StoredMessage))
    async def list_stored_completion_messages(
        request: Request, completion_id: str, query: Annotated[OldestFirst, Query()]
    ) -> dict[str, Any]:
        """The messages that were asked with; the answer is in the completion."""
        kept = await asyncio.to_thread((await mine(request)).get, completion_id)
        rows = [_message(kept.id, number, row) for number, row in enumerate(kept.messages)]
        return page_to_openai(window_over(rows, query.window, "message"), lambda row: row)

    return router


def stored_to_openai(kept: StoredCompletion) -> dict[str, Any]:
    """The completion, with what its request asked for."""
    asked = {name: value for name, value in kept.request.items() if name != "user"}
    return {
        **_DEFAULTS, **asked, **kept.completion,
        "metadata": dict(kept.metadata), "input_user": kept.request.get("user"), "request_id": None,
    }  # fmt: skip


def _message(completion_id: str, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    content = row.get("content")
    parts = content if isinstance(content, list) else None
    told = {"content": content if parts is None else _text(parts), "content_parts": parts}
    return {"refusal": None, "name": None, **row, **told, "id": f"{completion_id}-{number}"}


def _text(parts: Sequence[Any]) -> str:
    texts = (
        part if isinstance(part, str) else part.get("text") or part.get("refusal") or "" for part in parts
    )
    return "\n".join(texts)
