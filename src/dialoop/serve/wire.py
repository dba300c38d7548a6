"""OpenAI's chat completion bodies <-> our values."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from dialoop.chat.wire import message_from_openai
from dialoop.errors import DataError, RequestError, UnsupportedError, echo, nearest
from dialoop.serve.fields import NESTED, NOT_HONOURED_YET, ChatBody, is_neutral
from dialoop.store.identity import new_id
from dialoop.types import (
    Answer,
    ChatRequest,
    Conversation,
    Delta,
    Grammar,
    Message,
    RankedLogprob,
    Sampling,
    Served,
    TokenLogprob,
    Usage,
)

_ANYWHERE = {"role", "content", "name"}
_KEYS: Mapping[str, set[str]] = {
    "developer": _ANYWHERE,
    "system": _ANYWHERE,
    "user": _ANYWHERE,
    "tool": {*_ANYWHERE, "tool_call_id"},
    "assistant": {*_ANYWHERE, "refusal", "tool_calls", "reasoning_content", "reasoning"},
}
# What an assistant message of a response carries besides, always empty here: it may be sent back as it came.
_EMPTY_KEYS = {"annotations", "audio", "function_call", "refusal", "tool_calls"}
_PATH = re.compile(r"messages(?:\[\d+\]|\.\w+)*")


@dataclass(frozen=True, slots=True)
class ParsedChat:
    """A chat completion request, read. echo: what each answer begins with."""

    request: ChatRequest
    stream: bool
    include_usage: bool
    echo: str = ""


def parse_chat(body: Mapping[str, Any]) -> ParsedChat:
    """The request in `body`. Raises RequestError with the field at fault, UnsupportedError included."""
    fields = {name: value for name, value in body.items() if value is not None}
    for name in fields.keys() & NOT_HONOURED_YET.keys():
        _refuse_unless_neutral(name, fields.pop(name))
    for name in fields.keys() - ChatBody.model_fields.keys():
        known = [*ChatBody.model_fields, *NOT_HONOURED_YET]
        raise RequestError(f"unknown field {echo(name)}{_nearest(name, known)}", param=name[:64])
    try:
        chat = ChatBody.model_validate(fields)
    except ValidationError as error:
        raise refusal(dict(error.errors(include_url=False)[0])) from None
    if chat.stream_options is not None and not chat.stream:
        raise RequestError("stream_options came without stream: set stream to true", param="stream_options")
    messages = tuple(_message(row, i) for i, row in enumerate(chat.messages))
    request = ChatRequest(chat.model, Conversation(messages), _sampling(chat))
    usage = chat.stream_options is not None and chat.stream_options.include_usage
    echoed = messages[-1].content if chat.echo and messages[-1].role == "assistant" else ""
    return ParsedChat(request, chat.stream, usage, echoed)


def _refuse_unless_neutral(name: str, value: Any) -> None:
    if is_neutral(name, value):
        return
    neutral = " or ".join(echo(v) for v in NOT_HONOURED_YET[name])
    mend = f"leave it out or send {neutral}" if neutral else "leave it out"
    raise UnsupportedError(f"{name} = {echo(value)} is not supported yet by this engine: {mend}", param=name)


def _nearest(name: str, known: list[str]) -> str:
    close = nearest(name[:64], known)
    return close if "did you mean" in close else ": see /openapi.json for the fields that there are"


def refusal(problem: Mapping[str, Any]) -> RequestError:
    """What pydantic found, in three parts and without content."""
    path = [str(part) for part in problem["loc"] if isinstance(part, str) and part.isidentifier()]
    nested = NESTED.get(path[0])
    param = ".".join(path[:2] if nested else path[:1])
    if problem["type"] == "missing":
        return RequestError(f"{param} is missing: add it", param=param)
    if problem["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in nested.model_fields.items()] if nested else []
        return RequestError(f"unknown field {echo(param)}{_nearest(path[-1], known)}", param=param)
    return RequestError(f"{param} = {echo(problem['input'])}: {_wanted(param, problem)}", param=param)


def _wanted(param: str, problem: Mapping[str, Any]) -> str:
    if param == "stop":
        return "expected a string or at most 4 strings, each of 1 to 500 characters"
    if param == "messages" and problem["type"] == "too_short":
        return "expected at least one message"
    text = str(problem["msg"])
    return text[:1].lower() + text[1:]


def _message(row: Any, index: int) -> Message:
    where = f"messages[{index}]"
    if isinstance(row, Mapping):
        row = {key: value for key, value in row.items() if value is not None}
        _check_keys(row, where)
    try:
        message = message_from_openai(row, where=where)
    except DataError as error:
        found = _PATH.match(str(error))
        raise RequestError(str(error), param=found.group() if found else "messages") from None
    return _complete(message, row, where)


def _check_keys(row: Mapping[str, Any], where: str) -> None:
    role = row.get("role")
    known = _KEYS.get(role, set()) if isinstance(role, str) else set()
    for key in row.keys() - known if known else ():
        if not (key in _EMPTY_KEYS and role == "assistant" and not row[key]):
            raise RequestError(
                f"{where}: unknown field {echo(key)} for role {role}{_nearest(str(key), sorted(known))}",
                param=f"{where}.{key}"[:64],
            )
    if role == "function":
        raise RequestError(
            f"{where}.role is 'function', which is no longer served: use 'tool' with a tool_call_id",
            param=f"{where}.role",
        )


def _complete(message: Message, row: Mapping[str, Any], where: str) -> Message:
    """`message`, if it has all that OpenAI asks of its role."""
    if message.role == "tool" and not message.tool_call_id:
        raise RequestError(
            f"{where} has no tool_call_id: name the call it answers", param=f"{where}.tool_call_id"
        )
    said = row.get("content") is not None or row.get("refusal") is not None
    if message.role == "assistant" and not said and not message.tool_calls:
        raise RequestError(f"{where} has neither content nor tool_calls: give one", param=f"{where}.content")
    if row.get("content") == []:
        raise RequestError(
            f"{where}.content is a list of 0 items: give a text part", param=f"{where}.content"
        )
    return message


def _sampling(chat: ChatBody) -> Sampling:
    both = (chat.max_completion_tokens, chat.max_tokens)
    if None not in both and both[0] != both[1]:
        raise RequestError(
            f"max_completion_tokens = {both[0]} and max_tokens = {both[1]}: send one of them",
            param="max_tokens",
        )
    limit = chat.max_completion_tokens or chat.max_tokens
    if limit is not None and chat.min_tokens > limit:
        raise RequestError(
            f"min_tokens = {chat.min_tokens} is more than the {limit} that the answer may have: lower it",
            param="min_tokens",
        )
    _check_best_of(chat)
    if chat.stream and chat.prompt_logprobs is not None:
        raise RequestError("prompt_logprobs came with stream: leave one out", param="prompt_logprobs")
    if chat.top_logprobs is not None and not chat.logprobs:
        raise RequestError("top_logprobs came without logprobs: set logprobs to true", param="top_logprobs")
    grammar = _grammar(chat)
    if grammar is not None and chat.min_tokens:
        raise RequestError("min_tokens came with a format for the answer: leave one out", param="min_tokens")
    same = (
        "temperature", "top_p", "seed", "n", "best_of", "prompt_logprobs", "min_p", "typical_p",
        "presence_penalty", "frequency_penalty", "repetition_penalty", "min_tokens", "ignore_eos",
    )  # fmt: skip
    return Sampling(
        **{name: getattr(chat, name) for name in same},
        max_tokens=limit,
        stop=(chat.stop,) if isinstance(chat.stop, str) else tuple(chat.stop or ()),
        top_k=max(chat.top_k, 0),
        logit_bias=tuple((int(token), bias) for token, bias in chat.logit_bias.items()),
        stop_token_ids=tuple(chat.stop_token_ids),
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        processed_logprobs=chat.logprobs_mode == "processed_logprobs",
        grammar=grammar,
    )


def _check_best_of(chat: ChatBody) -> None:
    if chat.best_of is None:
        return
    if chat.best_of < chat.n:
        raise RequestError(f"best_of = {chat.best_of} is less than n = {chat.n}: raise it", param="best_of")
    if chat.stream and chat.best_of > chat.n:
        raise RequestError(
            f"best_of = {chat.best_of} came with stream, and the best are known at the end only: "
            f"leave one out",
            param="best_of",
        )


_ANY_OBJECT = Grammar("json_schema", '{"type": "object"}')


def _grammar(chat: ChatBody) -> Grammar | None:
    """What response_format or structured_outputs asks of the answer."""
    asked = [*_by_response_format(chat), *_by_structured_outputs(chat)]
    if len(asked) > 1:
        raise RequestError(
            f"structured_outputs, response_format: {len(asked)} formats for one answer: send one of them",
            param="structured_outputs",
        )
    return asked[0] if asked else None


def _by_response_format(chat: ChatBody) -> list[Grammar]:
    wanted = chat.response_format
    if wanted is None or wanted.type == "text":
        return []
    if wanted.type == "json_object":
        return [_ANY_OBJECT]
    if wanted.json_schema is None:
        raise RequestError(
            "response_format.json_schema is missing: add a name and a schema", param="response_format"
        )
    return [_schema(wanted.json_schema.schema_)]


def _by_structured_outputs(chat: ChatBody) -> list[Grammar]:
    wanted = chat.structured_outputs
    if wanted is None:
        return []
    found = [
        _schema(wanted.json_) if wanted.json_ is not None else None,
        _ANY_OBJECT if wanted.json_object else None,
        Grammar("regex", wanted.regex) if wanted.regex is not None else None,
        Grammar("choice", json.dumps(wanted.choice, ensure_ascii=False)) if wanted.choice else None,
        Grammar("lark", wanted.grammar) if wanted.grammar is not None else None,
    ]
    return [grammar for grammar in found if grammar is not None]


def _schema(schema: Mapping[str, Any]) -> Grammar:
    return Grammar("json_schema", json.dumps(schema or {"type": "object"}, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Reply:
    """The identity of one response; makes its body or its chunks.

    logprobs: they were asked for.  echo: what each answer begins with.
    """

    model: str
    logprobs: bool = False
    echo: str = ""
    id: str = field(default_factory=lambda: new_id("chatcmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, answers: tuple[Answer, ...]) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        choices: list[dict[str, Any]] = [
            {
                "index": index,
                "message": self._message(answer),
                "logprobs": self._told(answer.logprobs),
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        told = prompt_to_openai(answers[0].prompt_logprobs)
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": usage_to_openai(answers[0].usage),
            **({"prompt_logprobs": told} if told else {}),
        }

    def _message(self, answer: Answer) -> dict[str, Any]:
        text = self.echo + answer.text
        return {"role": "assistant", "content": text, "refusal": None, "annotations": []}

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of an answer: its role, and what it begins with."""
        return self._chunk(index, {"role": "assistant", "content": self.echo, "refusal": None}, None)

    def chunks(self, delta: Delta) -> list[dict[str, Any]]:
        """A delta's text and its end, each a chunk."""
        said = delta.text or delta.logprobs
        text = [self._chunk(delta.index, {"content": delta.text}, None, delta.logprobs)] if said else []
        end = [self._chunk(delta.index, {}, delta.finish_reason)] if delta.finish_reason else []
        return text + end

    def usage(self, usage: Usage) -> dict[str, Any]:
        """The last chunk of a stream with include_usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_to_openai(usage)}

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        finish_reason: str | None,
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> dict[str, Any]:
        told = self._told(logprobs) if logprobs else None
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _told(self, logprobs: tuple[TokenLogprob, ...]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            {**_token(each), "top_logprobs": [_token(other) for other in each.top]} for each in logprobs
        ]
        return {"content": content, "refusal": None}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": None,
        }


def _token(told: TokenLogprob) -> dict[str, Any]:
    """OpenAI's floor for what is next to impossible is -9999."""
    text = told.data.decode("utf-8", "replace")
    return {"token": text, "logprob": max(told.logprob, -9999.0), "bytes": list(told.data)}


def prompt_to_openai(places: tuple[tuple[RankedLogprob, ...], ...]) -> list[dict[str, Any] | None]:
    """vLLM's extension: for each token of the prompt {token id: {logprob, rank, decoded_token}}."""
    return [{str(each.token_id): _ranked(each) for each in place} or None for place in places]


def _ranked(each: RankedLogprob) -> dict[str, Any]:
    text = each.data.decode("utf-8", "replace")
    return {"logprob": max(each.logprob, -9999.0), "rank": each.rank, "decoded_token": text}


def usage_to_openai(usage: Usage) -> dict[str, Any]:
    """Usage with OpenAI's detail objects."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def model_to_openai(served: Served) -> dict[str, Any]:
    """A row of /v1/models; max_model_len is vLLM's extension."""
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": served.owner,
        "max_model_len": served.context or None,
    }
