"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.connection import ClientGoneError, EventStream, while_connected
from dialoop.serve.errors import http_error
from dialoop.serve.events import DONE, event
from dialoop.serve.fields import body_schema
from dialoop.serve.keeper import Keep, Keeper, answers_of, keep_of
from dialoop.serve.reply import Reply
from dialoop.serve.wire import ParsedChat, parse_chat
from dialoop.types import Chat, Delta, fold

Deltas = AsyncGenerator[Delta, None]


def chat_routes(
    engine: Chat, keeper: Keeper | None = None, *, max_body_bytes: int, body_seconds: float
) -> APIRouter:
    """The chat completion route over `engine`. keeper: of what is answered with `store`."""
    router = APIRouter()
    schema = {"requestBody": {"required": True, "content": {"application/json": {"schema": body_schema()}}}}

    @router.post("/v1/chat/completions", openapi_extra=schema, response_class=JSONResponse)
    async def create_chat_completion(request: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        body = await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds)
        chat = parse_chat(body)
        keep = keep_of(keeper, caller_of(request).project, body)
        deltas = cast(Deltas, engine.chat(chat.request))
        try:
            if chat.stream:
                return await _stream(chat, deltas, request, keep)
            async with aclosing(deltas):
                answers = await while_connected(request.receive, fold(deltas))
            completion = _reply(chat).completion(answers)
            if keep is not None:
                keep(completion)
            return JSONResponse(completion)
        except ClientGoneError:
            return Response(status_code=499)

    return router


async def _stream(chat: ParsedChat, deltas: Deltas, request: Request, keep: Keep | None) -> Response:
    """The stream, opened once its first delta is there: errors before it are real statuses."""
    first = await while_connected(request.receive, _first(deltas))
    return EventStream(_events(chat, first, deltas, keep))


def _reply(chat: ParsedChat) -> Reply:
    sampling = chat.request.sampling
    return Reply(
        chat.request.model, sampling.logprobs is not None, chat.echo, chat.older, sampling.token_ids,
        chat.metadata, chat.padded,
    )  # fmt: skip


async def _first(deltas: AsyncIterator[Delta]) -> Delta:
    return await anext(deltas)


async def _events(
    chat: ParsedChat, first: Delta, deltas: Deltas, keep: Keep | None
) -> AsyncGenerator[bytes, None]:
    """The events of a whole stream; a failure on the way is its last event."""
    extra = {"usage": None} if chat.include_usage else {}
    reply, opened, said = _reply(chat), set[int](), list[Delta]()
    async with aclosing(deltas):
        try:
            async for delta in _with(first, deltas):
                if keep is not None:
                    said.append(delta)
                if delta.index not in opened:
                    opened.add(delta.index)
                    yield event({**reply.opening(delta.index, delta), **extra})
                for chunk in reply.chunks(delta):
                    yield event({**chunk, **extra})
                if delta.usage is not None and chat.include_usage:
                    yield event(reply.usage(delta.usage))
            if keep is not None:
                keep(reply.completion(await answers_of(said)))
        except Exception as error:
            yield event(http_error(error).body)
            return
    yield DONE


async def _with(first: Delta, deltas: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
    yield first
    async for delta in deltas:
        yield delta
