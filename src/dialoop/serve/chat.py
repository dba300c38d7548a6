"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from dialoop.chat.wire import message_to_openai
from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.connection import ClientGoneError, EventStream, begun, while_connected
from dialoop.serve.errors import http_error
from dialoop.serve.events import DONE, event
from dialoop.serve.fields import REFUSED, ChatBody, body_schema
from dialoop.serve.judged import Judge, Judged
from dialoop.serve.keeper import Keep, Keeper, answers_of, keep_of
from dialoop.serve.prompts import PromptShelf
from dialoop.serve.reply import Reply
from dialoop.serve.trials import Trials, with_headers
from dialoop.serve.wire import ParsedChat, parse_chat
from dialoop.types import Chat, Delta, Usage, fold

Deltas = AsyncGenerator[Delta, None]


def chat_routes(
    engine: Chat,
    keeper: Keeper | None = None,
    *,
    judge: Judge,
    prompts: PromptShelf,
    trials: Trials,
    max_body_bytes: int,
    body_seconds: float,
) -> APIRouter:
    """The chat completion route over `engine`.

    keeper: of what is answered with `store`.  judge: of what has `moderation`.  prompts: that may be named.
    trials: that may be asked in the place of a model.
    """
    router = APIRouter()
    content = {"application/json": {"schema": body_schema(ChatBody, REFUSED)}}
    schema = {"requestBody": {"required": True, "content": content}}

    @router.post("/v1/chat/completions", openapi_extra=schema, response_class=JSONResponse)
    async def create_chat_completion(request: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        body, told = trials.placed(await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds))
        project = caller_of(request).project
        around = await prompts.named(project, body)
        chat = parse_chat(body, around)
        if around is not None:
            asked = [message_to_openai(message) for message in chat.request.conversation.messages]
            body = {**body, "messages": asked, "prompt": around.told}
        keep = keep_of(keeper, project, body)
        judged = None if chat.moderation is None else judge(chat.moderation)
        deltas = cast(Deltas, (judged or engine).chat(chat.request))
        deltas = prompts.counted(around, chat.request.model, deltas)
        try:
            if chat.stream:
                return with_headers(await _stream(chat, deltas, request, keep, judged), told)
            async with aclosing(deltas):
                answers = await while_connected(request.receive, fold(deltas))
            completion = _reply(chat).completion(answers) | await _told(judged)
            if keep is not None:
                await keep(completion)
            return JSONResponse(completion, headers=told)
        except ClientGoneError:
            return Response(status_code=499)

    return router


async def _told(judged: Judged | None) -> dict[str, Any]:
    return {} if judged is None else {"moderation": await judged.told()}


async def _stream(
    chat: ParsedChat, deltas: Deltas, request: Request, keep: Keep | None, judged: Judged | None
) -> Response:
    """The stream, opened once its first delta is there: errors before it are real statuses."""
    return EventStream(_events(chat, await begun(request.receive, deltas), deltas, keep, judged))


def _reply(chat: ParsedChat) -> Reply:
    sampling = chat.request.sampling
    return Reply(
        chat.request.model, sampling.logprobs is not None, chat.echo, chat.older, sampling.token_ids,
        chat.metadata, chat.padded,
    )  # fmt: skip


async def _events(
    chat: ParsedChat, told: Deltas, deltas: Deltas, keep: Keep | None, judged: Judged | None
) -> AsyncGenerator[bytes, None]:
    """The events of a whole stream; a failure on the way is its last event. told: the deltas, begun."""
    extra = {"usage": None} if chat.include_usage else {}
    reply, opened, said = _reply(chat), set[int](), list[Delta]()
    usage: Usage | None = None
    async with aclosing(deltas):
        try:
            async for delta in told:
                if keep is not None:
                    said.append(delta)
                if delta.index not in opened:
                    opened.add(delta.index)
                    yield event({**reply.opening(delta.index, delta), **extra})
                for chunk in reply.chunks(delta):
                    yield event({**chunk, **extra})
                usage = delta.usage or usage
            if judgement := await _told(judged):
                yield event({**reply.judged(judgement), **extra})
            if usage is not None and chat.include_usage:
                yield event(reply.usage(usage))
            if keep is not None:
                await keep(reply.completion(await answers_of(said)) | judgement)
        except Exception as error:
            yield event(http_error(error).body)
            return
    yield DONE
