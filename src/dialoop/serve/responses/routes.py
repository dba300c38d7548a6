"""POST /v1/responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter
from starlette.responses import Response

from dialoop.errors import UnknownRecordError, UnsupportedError
from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.connection import ClientGoneError, EventStream, begun, while_connected
from dialoop.serve.errors import HttpError, http_error
from dialoop.serve.events import event
from dialoop.serve.fields import body_schema
from dialoop.serve.judged import Judge, Judged
from dialoop.serve.keeper import Keep, Keeper
from dialoop.serve.prompts import PromptShelf
from dialoop.serve.responses.asking import asked_of, parse_response
from dialoop.serve.responses.assembly import Assembly
from dialoop.serve.responses.fields import REFUSED, ResponseBody
from dialoop.serve.responses.items import Item
from dialoop.serve.responses.output import Event
from dialoop.serve.responses.turns import kept_items
from dialoop.serve.trials import Trials, with_headers
from dialoop.types import Chat, Delta

Deltas = AsyncGenerator[Delta, None]
_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])


def response_routes(
    engine: Chat,
    keeper: Keeper | None = None,
    *,
    judge: Judge,
    prompts: PromptShelf,
    trials: Trials,
    max_body_bytes: int,
    body_seconds: float,
) -> APIRouter:
    """The route over `engine`.

    keeper: of what is stored, and of what is gone on from.  judge: of what has `moderation`.
    prompts: that may be named.  trials: that may be asked in the place of a model.
    """
    router = APIRouter()
    content = {"application/json": {"schema": body_schema(ResponseBody, REFUSED)}}
    schema = {"requestBody": {"required": True, "content": content}}

    @router.post("/v1/responses", openapi_extra=schema, response_class=JSONResponse)
    async def create_response(request: Request) -> Response:
        """Answer an input, whole or as server-sent events."""
        given, headers = trials.placed(
            await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds)
        )
        project = caller_of(request).project
        around = await prompts.named(project, given)
        body = parse_response(given if around is None else around.response(given))
        asked = asked_of(body, await _history(keeper, project, body.previous_response_id), around)
        keep = _keep_of(keeper, project, body)
        judged = None if body.moderation is None else judge(body.moderation)
        assembly = Assembly(body, keep is not None)
        deltas = prompts.counted(around, asked.request.model, asked.answer(judged or engine))
        try:
            if body.stream:
                told = await begun(request.receive, deltas)
                return with_headers(EventStream(_events(assembly, told, deltas, keep, judged)), headers)
            async with aclosing(deltas):
                response = await while_connected(request.receive, _whole(assembly, deltas, judged))
            if keep is not None:
                await keep(response)
            return JSONResponse(response, headers=headers)
        except ClientGoneError:
            return Response(status_code=499)

    return router


def _keep_of(keeper: Keeper | None, project: str, body: ResponseBody) -> Keep | None:
    """None where the response is not to be stored, or nothing is and nobody asked for it.

    Raises UnsupportedError where somebody did.
    """
    if not body.store:
        return None
    if keeper is None:
        if "store" in body.model_fields_set:
            raise UnsupportedError("this server keeps no data: leave store out", param="store")
        return None
    return keeper.keep_response(project, kept_items(body.said))


async def _history(keeper: Keeper | None, project: str, previous: str | None) -> list[Item]:
    """The items that a response and those before it add to the dialogue. Raises HttpError."""
    if previous is None:
        return []
    if keeper is None:
        raise UnsupportedError(
            "this server keeps no data: send all items as input", param="previous_response_id"
        )
    try:
        chain = await asyncio.to_thread(keeper.chain, project, previous)
    except UnknownRecordError as error:
        raise HttpError(
            400, str(error), param="previous_response_id", code="previous_response_not_found"
        ) from None
    return _ITEMS.validate_python([item for kept in chain for item in kept.items])


async def _whole(assembly: Assembly, deltas: Deltas, judged: Judged | None) -> Mapping[str, Any]:
    """The response, once it is made: its events are told to nobody."""
    list(assembly.begin())
    async for delta in deltas:
        list(assembly.take(delta))
    list(assembly.end(None if judged is None else await judged.told_alone()))
    return assembly.response


async def _events(
    assembly: Assembly, told: Deltas, deltas: Deltas, keep: Keep | None, judged: Judged | None
) -> AsyncGenerator[bytes, None]:
    """The events of a whole stream; a failure on the way is its last event. told: the deltas, begun."""
    async with aclosing(deltas):
        for each in assembly.begin():
            yield event(each, each["type"])
        try:
            async for delta in told:
                for each in assembly.take(delta):
                    yield event(each, each["type"])
            last = list(assembly.end(None if judged is None else await judged.told_alone()))
        except Exception as error:
            last = list(assembly.fail(http_error(error)))
        for each in last if keep is None else await _kept(assembly, last, keep):
            yield event(each, each["type"])


async def _kept(assembly: Assembly, last: list[Event], keep: Keep) -> list[Event]:
    """The last events of a response that is kept; of a failed one where it is not."""
    try:
        await keep(assembly.response)
    except Exception as error:
        return [*last[:-1], *assembly.fail(http_error(error))]
    return last
