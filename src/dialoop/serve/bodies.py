"""Routes whose body is one small pydantic model: read, checked, and given up when the client hangs up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from dialoop.serve.body import read_json
from dialoop.serve.connection import ClientGoneError, while_connected
from dialoop.serve.fields import schema_of
from dialoop.serve.typed_body import parsed


class Body(BaseModel):
    """A body that refuses what it does not know; null means absent."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


B = TypeVar("B", bound=Body)


def add_route(
    router: APIRouter,
    paths: tuple[str, ...],
    kind: type[B],
    answer: Callable[[B], Awaitable[dict[str, Any]]],
    *,
    max_body_bytes: int,
    body_seconds: float,
) -> None:
    """POST to each of `paths` is answered by `answer`, whose name and docstring OpenAPI tells."""

    async def route(request: Request) -> Response:
        asked = parsed(kind, await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds))
        try:
            return JSONResponse(await while_connected(request.receive, _awaited(answer(asked))))
        except ClientGoneError:
            return Response(status_code=499)

    schema = {"application/json": {"schema": schema_of(kind)}}
    for path in paths:
        router.add_api_route(
            path,
            route,
            methods=["POST"],
            operation_id=f"{answer.__name__}{path.replace('/', '_')}",
            summary=answer.__doc__,
            response_class=JSONResponse,
            openapi_extra={"requestBody": {"required": True, "content": schema}},
        )


async def _awaited(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return await work
