"""A request for a response -> the request for a chat that answers it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

from dialoop.errors import ContextLengthError, RequestError, UnsupportedError, echo
from dialoop.serve.responses.fields import LOGPROBS, REFUSED, ResponseBody, TextFormat
from dialoop.serve.responses.items import Item
from dialoop.serve.responses.tools import choice_to_chat, tool_to_chat
from dialoop.serve.responses.turns import Turns
from dialoop.serve.responses.wording import in_the_words_of_responses
from dialoop.serve.typed_body import parsed
from dialoop.serve.wire import Around, parse_chat, without_refused
from dialoop.types import Chat, ChatRequest, Delta, Message

_HOLDS_NO_TEXT = ("input_image", "input_file", "input_audio")
_FOLLOW = ("assistant", "tool")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a response: the chat that answers it, and where in it each message comes from."""

    request: ChatRequest
    places: tuple[str, ...]
    truncated: bool = False
    """Whether the oldest turns may be left out."""

    async def answer(self, engine: Chat) -> AsyncGenerator[Delta, None]:
        """The deltas of the one answer. Errors about the request come before the first."""
        with in_the_words_of_responses(self.places):
            async with aclosing(_fitted(engine, self.request, self.truncated)) as deltas:
                async for delta in deltas:
                    yield delta


def parse_response(body: Mapping[str, Any]) -> ResponseBody:
    """The request in `body`. Raises RequestError with the field at fault, UnsupportedError included."""
    given = {name: value for name, value in body.items() if value is not None}
    _refuse_kinds(given.get("input"))
    asked = parsed(ResponseBody, without_refused(given, REFUSED), others=REFUSED)
    if asked.stream_options is not None and not asked.stream:
        raise RequestError("stream_options came without stream: set stream to true", param="stream_options")
    if asked.top_logprobs and LOGPROBS not in asked.include:
        raise RequestError(f"top_logprobs came without {LOGPROBS!r} in include: add it", param="top_logprobs")
    ids = [item.id for item in asked.input if item.id] if not isinstance(asked.input, str) else []
    if len(set(ids)) < len(ids):
        raise RequestError("input: two items have the same id: leave the ids out, or one item", param="input")
    return asked


def _refuse_kinds(given: Any) -> None:
    """Raises UnsupportedError for items and parts that are known and not served."""
    for i, item in enumerate(given if isinstance(given, list) else ()):
        if not isinstance(item, Mapping):
            continue
        if item.get("type") == "item_reference":
            raise _unserved(f"input[{i}]", item, "send the item itself, or previous_response_id")
        for key in ("content", "output"):
            parts = item.get(key)
            for j, part in enumerate(parts if isinstance(parts, list) else ()):
                if isinstance(part, Mapping) and part.get("type") in _HOLDS_NO_TEXT:
                    why = "messages hold text only: remove it or describe it in words"
                    raise _unserved(f"input[{i}].{key}[{j}]", part, why)


def _unserved(where: str, found: Mapping[str, Any], why: str) -> UnsupportedError:
    where = f"{where}.type"
    return UnsupportedError(f"{where} = {echo(found['type'])} is not served: {why}", param=where)


def asked_of(body: ResponseBody, history: Sequence[Item], around: Around | None = None) -> Asked:
    """The chat that answers `body`. history: the items that come before its input. Raises RequestError.

    around: of a body that names a prompt.
    """
    turns = Turns()
    if body.instructions is not None:
        turns.say("instructions", "system", body.instructions)
    for item in history:
        turns.add("previous_response_id", item)
    said = body.said
    if isinstance(said, str):
        turns.say("input", "user", said)
    else:
        for i, item in enumerate(said):
            turns.add(f"input[{i}]", item)
    with in_the_words_of_responses(turns.places):
        request = parse_chat({**_fields(body), "messages": turns.chat}, around).request
    return Asked(request, tuple(turns.places), body.truncation == "auto")


def _fields(body: ResponseBody) -> dict[str, Any]:
    """All but the messages; null = absent."""
    logprobs = LOGPROBS in body.include
    return {
        "model": body.model,
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "response_format": _format(body.text.format),
        "verbosity": body.text.verbosity,
        "reasoning_effort": body.reasoning.effort,
        "tools": [tool_to_chat(tool, f"tools[{i}]") for i, tool in enumerate(body.tools)],
        "tool_choice": choice_to_chat(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "logprobs": logprobs,
        "top_logprobs": body.top_logprobs if logprobs else None,
    }


def _format(wanted: TextFormat) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    for name, value in (("name", wanted.name), ("schema", wanted.schema_)):
        if value is None:
            raise RequestError(f"text.format.{name} is missing: add it", param=f"text.format.{name}")
    return {"type": wanted.type, "json_schema": {"name": wanted.name, "schema": wanted.schema_}}


async def _fitted(engine: Chat, request: ChatRequest, truncated: bool) -> AsyncGenerator[Delta, None]:
    """The answer to the request, or to as much of its end as fits the context."""
    while True:
        async with aclosing(cast(AsyncGenerator[Delta, None], engine.chat(request))) as deltas:
            try:
                first = await anext(deltas)
            except ContextLengthError as error:
                if not truncated:
                    raise
                request = _shorter(request, error)
                continue
            yield first
            async for delta in deltas:
                yield delta
            return


def _shorter(request: ChatRequest, error: ContextLengthError) -> ChatRequest:
    """The request without its oldest turns: as many as hold what is too much, if all text is as dense.

    Its first system message and its last turn stay, and what is left begins with no answer, nor with what a
    call came to. Raises the error where nothing can go.
    """
    messages = request.conversation.messages
    first = 1 if messages[0].role == "system" else 0
    share = (error.prompt_tokens - error.limit) / error.prompt_tokens
    excess = share * sum(map(_size, messages))
    at = first
    while at < len(messages) - 1 and (excess > 0 or at == first or messages[at].role in _FOLLOW):
        excess -= _size(messages[at])
        at += 1
    if at == first or messages[at].role in _FOLLOW:
        raise error
    kept = (*messages[:first], *messages[at:])
    return replace(request, conversation=replace(request.conversation, messages=kept))


def _size(message: Message) -> int:
    calls = sum(len(call.arguments) for call in message.tool_calls)
    return len(message.content.encode()) + len(message.reasoning or "") + calls + 1
