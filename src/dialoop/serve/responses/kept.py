"""Kept responses: GET, DELETE and what lies below /v1/responses/{id}."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from dialoop.errors import UnsupportedError, echo
from dialoop.serve.caller import caller_of
from dialoop.serve.keeper import Keeper
from dialoop.serve.paging import ListQuery, list_schema, page_to_openai, window_over
from dialoop.serve.responses.fields import Include
from dialoop.store.responses import KeptResponse, Responses

Included = Annotated[list[Include], Field(max_length=16)]


class RetrieveQuery(BaseModel):
    """The query of GET /v1/responses/{id}."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    include: Included = Field([])
    """Hint: a response is told as it was answered, with all that was included then."""
    include_in_brackets: Included = Field([], alias="include[]")
    """The same, as OpenAI's client writes it."""
    stream: bool = False
    """Refused: nothing is made in the background, so there is nothing to follow."""
    starting_after: int | None = None
    """Refused with stream."""
    include_obfuscation: bool = False
    """Hint: only streams are padded."""


class InputItemsQuery(ListQuery):
    """The query of GET /v1/responses/{id}/input_items."""

    include: Included = Field([])
    """Hint: items are told whole."""
    include_in_brackets: Included = Field([], alias="include[]")
    """The same, as OpenAI's client writes it."""


class ResponseObject(BaseModel):
    """A response as it was answered, with what it was asked for."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, Any] | None = None
    previous_response_id: str | None = None
    metadata: dict[str, str]


class InputItemObject(BaseModel):
    """An item that a response was asked with."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: str


class ResponseDeleted(BaseModel):
    """What is told of a response that was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


def kept_response_routes(keeper: Keeper) -> APIRouter:
    """The routes; they see all that was answered before them."""
    router = APIRouter(prefix="/v1/responses/{response_id}")

    async def mine(request: Request) -> Responses:
        return (await keeper.reading(caller_of(request).project)).responses

    async def one(request: Request, response_id: str) -> KeptResponse:
        return await asyncio.to_thread((await mine(request)).get, response_id)

    @router.get("", responses={200: {"model": ResponseObject}})
    async def retrieve_response(
        request: Request, response_id: str, query: Annotated[RetrieveQuery, Query()]
    ) -> dict[str, Any]:
        """One kept response."""
        for name in ("stream", "starting_after"):
            if getattr(query, name) not in (False, None):
                raise UnsupportedError(
                    f"{name}: nothing is made in the background, so a kept response is whole: leave it out",
                    param=name,
                )
        return dict((await one(request, response_id)).response)

    @router.delete("")
    async def delete_response(request: Request, response_id: str) -> ResponseDeleted:
        """Delete one; what goes on from it can be gone on from no more."""
        await asyncio.to_thread((await mine(request)).delete, response_id)
        return ResponseDeleted(id=response_id)

    @router.get("/input_items", responses=list_schema(InputItemObject))
    async def list_input_items(
        request: Request, response_id: str, query: Annotated[InputItemsQuery, Query()]
    ) -> dict[str, Any]:
        """The items that it was asked with; those of the responses before it are theirs."""
        kept = await one(request, response_id)
        return page_to_openai(window_over(kept.input, query.window, "item"), lambda row: row)

    @router.post("/cancel", responses={200: {"model": ResponseObject}})
    async def cancel_response(request: Request, response_id: str) -> dict[str, Any]:
        """Refused: only what is made in the background can be cancelled, and nothing is."""
        status = (await one(request, response_id)).response["status"]
        raise UnsupportedError(
            f"response {echo(response_id)} is {status}: only responses in the background can be cancelled, "
            f"and none are made there: hang up to end one that is being made"
        )

    return router
