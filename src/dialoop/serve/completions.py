"""POST /v1/completions: how texts go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from dialoop.errors import RequestError, UnsupportedError, echo
from dialoop.serve.body import read_json
from dialoop.serve.connection import ClientGoneError, EventStream, begun, while_connected
from dialoop.serve.errors import http_error
from dialoop.serve.events import DONE, event
from dialoop.serve.fields import CompletionBody, StreamOptions, schema_of
from dialoop.serve.merge import merged
from dialoop.serve.spelling import Spelling, TextReply, Wanted
from dialoop.serve.trials import Trials, with_headers
from dialoop.serve.wire import checked, prediction_of, sampling_of
from dialoop.types import Complete, CompleteRequest, Delta, Folding, Tokenize, Usage

MAX_PROMPTS = 1024
"""Of one request."""
WIDTH = 16
"""Prompts of one request that are answered side by side."""
Prompt = str | tuple[int, ...]
Told = tuple[int, Delta]
"""A prompt's number and a delta of its answers."""


@runtime_checkable
class _Completes(Complete, Tokenize, Protocol):
    """What echoing a prompt needs besides going on with it."""


@dataclass(frozen=True, slots=True)
class ParsedCompletion:
    """A text completion request, read: one of the engine's for each prompt."""

    requests: tuple[CompleteRequest, ...]
    wanted: Wanted
    stream: bool
    include_usage: bool

    @property
    def n(self) -> int:
        """Answers a prompt."""
        return self.requests[0].sampling.n


def parse_completion(body: Mapping[str, Any]) -> ParsedCompletion:
    """The request in `body`. Raises RequestError with the field at fault."""
    asked = checked(CompletionBody, {name: value for name, value in body.items() if value is not None})
    sampling = sampling_of(asked, asked.max_tokens, asked.logprobs)
    if asked.max_tokens == 0 and not asked.echo and asked.prompt_logprobs is None:
        raise RequestError(
            "max_tokens = 0 came without echo: raise it, or set echo to true", param="max_tokens"
        )
    if asked.echo and asked.logprobs is not None:
        sampling = replace(sampling, prompt_logprobs=asked.logprobs)
    sampling = replace(sampling, token_ids=sampling.token_ids or asked.echo)
    requests = tuple(
        CompleteRequest(asked.model, prompt, sampling, prediction_of(asked), asked.priority)
        for prompt in prompts_of(asked.prompt)
    )
    usage = (asked.stream_options or StreamOptions()).include_usage
    wanted = Wanted(asked.echo, asked.logprobs, asked.return_token_ids, asked.prompt_logprobs is not None)
    return ParsedCompletion(requests, wanted, asked.stream, usage)


def prompts_of(given: Any) -> list[Prompt]:
    """Of the four forms of OpenAI's `prompt`. Raises RequestError."""
    if isinstance(given, str):
        return [given]
    if _are_ids(given):
        return [tuple(given)]
    if isinstance(given, list) and given and len(given) <= MAX_PROMPTS:
        if all(isinstance(each, str) for each in given):
            return list(given)
        if all(map(_are_ids, given)):
            return [tuple(each) for each in given]
    raise RequestError(
        f"prompt = {echo(given)}: expected a text, up to {MAX_PROMPTS} texts, or token ids of one or more",
        param="prompt",
    )


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def completion_routes(
    engine: object, *, trials: Trials, max_body_bytes: int, body_seconds: float
) -> APIRouter:
    """The text completion route over `engine`, which may not complete at all.

    trials: that may be asked in the place of a model.
    """
    router = APIRouter()
    schema = {"application/json": {"schema": schema_of(CompletionBody)}}

    @router.post(
        "/v1/completions",
        openapi_extra={"requestBody": {"required": True, "content": schema}},
        response_class=JSONResponse,
    )
    async def create_completion(request: Request) -> Response:
        """Go on with a text, or with several, whole or as server-sent events."""
        body, headers = trials.placed_text(
            await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds)
        )
        asked = parse_completion(body)
        if not isinstance(engine, _Completes):
            raise UnsupportedError("this engine answers dialogues only: ask /v1/chat/completions")
        told = merged([_deltas(engine, each) for each in asked.requests], width=WIDTH)
        reply = TextReply(asked.requests[0].model, Spelling(engine, asked.requests, asked.wanted))
        try:
            if asked.stream:
                events = _events(asked, reply, await begun(request.receive, told), told)
                return with_headers(EventStream(events), headers)
            async with aclosing(told):
                whole = await while_connected(request.receive, _whole(asked, reply, told))
            return JSONResponse(whole, headers=headers)
        except ClientGoneError:
            await told.aclose()
            return Response(status_code=499)

    return router


async def _deltas(engine: Complete, request: CompleteRequest) -> AsyncGenerator[Delta, None]:
    deltas = engine.complete(request)
    assert isinstance(deltas, AsyncGenerator)
    async with aclosing(deltas):
        async for delta in deltas:
            yield delta


async def _whole(
    asked: ParsedCompletion, reply: TextReply, told: AsyncGenerator[Told, None]
) -> dict[str, Any]:
    """The body of a response that is not streamed."""
    answers: dict[tuple[int, int], Folding] = {}
    firsts: dict[int, Delta] = {}
    usages = [Usage()] * len(asked.requests)
    async for number, delta in told:
        firsts.setdefault(number, delta)
        answers.setdefault((number, delta.index), Folding()).add(delta)
        usages[number] = delta.usage or usages[number]
    choices = [
        await reply.choice(number, number * asked.n + index, folding.answer(usages[number], firsts[number]))
        for (number, index), folding in sorted(answers.items())
    ]
    return reply.body(choices, usages)


async def _events(
    asked: ParsedCompletion,
    reply: TextReply,
    deltas: AsyncGenerator[Told, None],
    told: AsyncGenerator[Told, None],
) -> AsyncGenerator[bytes, None]:
    """The events of a whole stream; a failure on the way is its last event. deltas: `told`, begun."""
    extra = {"usage": None} if asked.include_usage else {}
    usages = [Usage()] * len(asked.requests)
    async with aclosing(told):
        try:
            async for number, delta in deltas:
                usages[number] = delta.usage or usages[number]
                for choice in await reply.choices(number, number * asked.n + delta.index, delta):
                    yield event({**reply.head(), "choices": [choice], **extra})
            if asked.include_usage:
                yield event(reply.body([], usages))
        except Exception as error:
            yield event(http_error(error).body)
            return
    yield DONE
