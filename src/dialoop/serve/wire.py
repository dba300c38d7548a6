"""OpenAI's chat completion bodies -> our values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dialoop.chat.schema import followable
from dialoop.chat.wire import message_from_openai
from dialoop.errors import DataError, RequestError, UnsupportedError, echo, nearest
from dialoop.serve.fields import REFUSED, ChatBody, ModerationWish, Refused, SamplingBody, StreamOptions
from dialoop.serve.offer import offer_of
from dialoop.types import ChatRequest, Conversation, Grammar, Message, Prompting, Sampling

_ANYWHERE = {"role", "content", "name"}
_KEYS: Mapping[str, set[str]] = {
    "developer": _ANYWHERE,
    "system": _ANYWHERE,
    "user": _ANYWHERE,
    "tool": {*_ANYWHERE, "tool_call_id"},
    "function": _ANYWHERE,
    "assistant": {*_ANYWHERE, "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning"},
}
_PART_KEYS = {"type", "text", "refusal", "prompt_cache_breakpoint"}
# What an assistant message of a response carries besides, always empty here: it may be sent back as it came.
_EMPTY_KEYS = {"annotations", "audio", "function_call", "refusal", "tool_calls"}
# What versions of lm-evaluation-harness before 0.4.12 say of every message.
_SAYS_NOTHING = ("type", "text")
_PATH = re.compile(r"messages(?:\[\d+\]|\.\w+)*")


@dataclass(frozen=True, slots=True)
class ParsedChat:
    """A chat completion request, read.

    echo: what each answer begins with.  older: answered with `function_call`.  padded: chunks hide the size
    of their text.  store, metadata: whether the completion is kept, and what is kept and told with it.
    moderation: asked for beside the server's own.
    """

    request: ChatRequest
    stream: bool
    include_usage: bool
    echo: str = ""
    older: bool = False
    padded: bool = False
    store: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    moderation: ModerationWish | None = None


class Around(Protocol):
    """What stands around the messages of a request, and says what it leaves open."""

    def ask(self, history: Conversation) -> Conversation: ...

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]: ...


def parse_chat(body: Mapping[str, Any], around: Around | None = None) -> ParsedChat:
    """The request in `body`. Raises RequestError with the field at fault, UnsupportedError included.

    around: of a request that names a prompt.
    """
    fields = {
        name: value for name, value in (around.chat(body) if around else body).items() if value is not None
    }
    chat = checked(ChatBody, without_refused(fields, REFUSED), [*REFUSED])
    messages = tuple(_message(row, i) for i, row in enumerate(chat.messages))
    offer = offer_of(chat)
    conversation = Conversation(messages, offer.tools)
    if around is not None:
        conversation = around.ask(conversation)
    elif not messages:
        raise RequestError("messages = a list of 0 items: expected at least one message", param="messages")
    request = ChatRequest(
        chat.model,
        conversation,
        sampling_of(chat, _limit(chat), (chat.top_logprobs or 0) if chat.logprobs else None),
        choice=offer.choice,
        prompting=_prompting(chat),
        prediction=prediction_of(chat),
        priority=chat.priority,
    )
    options = chat.stream_options or StreamOptions()
    last = conversation.messages[-1]
    echoed = last.content if chat.echo and last.role == "assistant" else ""
    return ParsedChat(
        request, chat.stream, options.include_usage, echoed, offer.older, options.include_obfuscation,
        chat.store, chat.metadata, chat.moderation,
    )  # fmt: skip


Body = TypeVar("Body", bound=SamplingBody)


def checked(kind: type[Body], body: Mapping[str, Any], known: Sequence[str] = ()) -> Body:
    """The fields of `body`, which has none that are null. Raises RequestError with the field at fault.

    known: further names, for the nearest to an unknown one.
    """
    for name in body.keys() - kind.model_fields.keys():
        close = _nearest(name, [*kind.model_fields, *known])
        raise RequestError(f"unknown field {echo(name)}{close}", param=name[:64])
    try:
        found = kind.model_validate(body)
    except ValidationError as error:
        raise refusal(dict(error.errors(include_url=False)[0]), kind) from None
    if found.stream_options is not None and not found.stream:
        raise RequestError("stream_options came without stream: set stream to true", param="stream_options")
    return found


def without_refused(fields: Mapping[str, Any], refused: Mapping[str, Refused]) -> dict[str, Any]:
    """The other fields. Raises UnsupportedError for a refused one that asks for something."""
    for name in fields.keys() & refused.keys():
        if not refused[name].allows(fields[name]):
            neutral = " or ".join(echo(v) for v in refused[name].neutral)
            mend = f"leave it out or send {neutral}" if neutral else "leave it out"
            raise UnsupportedError(
                f"{name} = {echo(fields[name])} is not served: {refused[name].why}: {mend}", param=name
            )
    return {name: value for name, value in fields.items() if name not in refused}


def _prompting(chat: ChatBody) -> Prompting:
    if chat.continue_final_message and chat.add_generation_prompt:
        raise RequestError(
            "continue_final_message came with add_generation_prompt: leave one out",
            param="continue_final_message",
        )
    wishes: dict[str, Any] = {}
    if chat.reasoning_effort is not None:
        thinking = chat.reasoning_effort != "none"
        wishes = {
            "reasoning_effort": chat.reasoning_effort,
            "enable_thinking": thinking,
            "thinking": thinking,
        }
    if chat.verbosity is not None:
        wishes["verbosity"] = chat.verbosity
    return Prompting(
        variables=chat.chat_template_kwargs,
        wishes=wishes,
        answering=chat.add_generation_prompt is not False,
        continued=chat.continue_final_message,
        documents=tuple(chat.documents),
    )


def prediction_of(asked: SamplingBody) -> str:
    """The text that an answer may look like."""
    if asked.prediction is None:
        return ""
    content = asked.prediction.content
    if isinstance(content, str):
        return content
    if not all(isinstance(each, Mapping) and isinstance(each.get("text"), str) for each in content):
        raise RequestError("prediction.content: expected a text or text parts", param="prediction.content")
    return "".join(each["text"] for each in content)


def _nearest(name: str, known: list[str]) -> str:
    close = nearest(name[:64], known)
    return close if "did you mean" in close else ": see /openapi.json for the fields that there are"


def refusal(problem: Mapping[str, Any], kind: type[BaseModel]) -> RequestError:
    """What pydantic found in a `kind`, in three parts and without content."""
    param, known = _place(kind, problem["loc"])
    if problem["type"] == "missing":
        return RequestError(f"{param} is missing: add it", param=param)
    if problem["type"] == "extra_forbidden":
        name = str(problem["loc"][-1])
        param = f"{param}.{name[:64]}".strip(".")
        return RequestError(f"unknown field {echo(param)}{_nearest(name, known)}", param=param)
    return RequestError(f"{param} = {echo(problem['input'])}: {_wanted(param, problem)}", param=param)


def _place(kind: type[BaseModel], loc: Sequence[int | str]) -> tuple[str, list[str]]:
    """The path of a problem, and the fields that there are where it ends.

    What is no field is the name of a union's member, and an index counts where models are listed.
    """
    path, fields = "", _fields([kind])
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]" if fields else ""
        elif part in fields:
            path += f".{part}"
            fields = _fields(_models(fields[part].annotation))
    return path[1:], [*fields]


def _fields(kinds: Iterable[type[BaseModel]]) -> dict[str, FieldInfo]:
    return {each.alias or name: each for kind in kinds for name, each in kind.model_fields.items()}


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in get_args(annotation) for model in _models(each)]


def _wanted(param: str, problem: Mapping[str, Any]) -> str:
    if param == "stop":
        return "expected a string or at most 4 strings, each of 1 to 500 characters"
    text = str(problem["msg"])
    return text[:1].lower() + text[1:]


def _message(row: Any, index: int) -> Message:
    where = f"messages[{index}]"
    if isinstance(row, Mapping):
        row = {k: value for k, value in row.items() if value is not None and (k, value) != _SAYS_NOTHING}
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
    parts = row.get("content")
    for i, part in enumerate(parts if isinstance(parts, list) else ()):
        for key in (
            part.keys() - _PART_KEYS if isinstance(part, Mapping) and part.get("type") == "text" else ()
        ):
            raise RequestError(
                f"{where}.content[{i}]: unknown field {echo(key)}{_nearest(str(key), sorted(_PART_KEYS))}",
                param=f"{where}.content[{i}]",
            )


def _complete(message: Message, row: Mapping[str, Any], where: str) -> Message:
    """`message`, if it has all that OpenAI asks of its role."""
    if row.get("role") == "function":
        if not message.name:
            raise RequestError(f"{where} has no name: name the function", param=f"{where}.name")
    elif message.role == "tool" and not message.tool_call_id:
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


def _limit(chat: ChatBody) -> int | None:
    both = (chat.max_completion_tokens, chat.max_tokens)
    if None not in both and both[0] != both[1]:
        raise RequestError(
            f"max_completion_tokens = {both[0]} and max_tokens = {both[1]}: send one of them",
            param="max_tokens",
        )
    if chat.top_logprobs is not None and not chat.logprobs:
        raise RequestError("top_logprobs came without logprobs: set logprobs to true", param="top_logprobs")
    return chat.max_completion_tokens or chat.max_tokens


def sampling_of(asked: SamplingBody, limit: int | None, logprobs: int | None) -> Sampling:
    """How answers are drawn. limit: tokens, None = to the end of the context. Raises RequestError."""
    if limit is not None and asked.min_tokens > limit:
        raise RequestError(
            f"min_tokens = {asked.min_tokens} is more than the {limit} that the answer may have: lower it",
            param="min_tokens",
        )
    _check_best_of(asked)
    if asked.stream and asked.prompt_logprobs is not None:
        raise RequestError("prompt_logprobs came with stream: leave one out", param="prompt_logprobs")
    grammar = _grammar(asked)
    if grammar is not None and asked.min_tokens:
        raise RequestError("min_tokens came with a format for the answer: leave one out", param="min_tokens")
    same = (
        "temperature", "top_p", "seed", "n", "best_of", "prompt_logprobs", "min_p", "typical_p",
        "presence_penalty", "frequency_penalty", "repetition_penalty", "min_tokens", "ignore_eos",
    )  # fmt: skip
    return Sampling(
        **{name: getattr(asked, name) for name in same},
        max_tokens=limit,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        top_k=max(asked.top_k, 0),
        logit_bias=tuple((int(token), bias) for token, bias in asked.logit_bias.items()),
        stop_token_ids=tuple(asked.stop_token_ids),
        logprobs=logprobs,
        processed_logprobs=asked.logprobs_mode == "processed_logprobs",
        grammar=grammar,
        bad_words=tuple(asked.bad_words),
        allowed_token_ids=tuple(asked.allowed_token_ids or ()),
        include_stop=asked.include_stop_str_in_output,
        token_ids=asked.return_token_ids,
    )


def _check_best_of(asked: SamplingBody) -> None:
    if asked.best_of is None:
        return
    if asked.best_of < asked.n:
        raise RequestError(f"best_of = {asked.best_of} is less than n = {asked.n}: raise it", param="best_of")
    if asked.stream and asked.best_of > asked.n:
        raise RequestError(
            f"best_of = {asked.best_of} came with stream, and the best are known at the end only: "
            f"leave one out",
            param="best_of",
        )


_ANY_OBJECT = Grammar("json_schema", '{"type": "object"}')


def _grammar(asked: SamplingBody) -> Grammar | None:
    """What response_format, structured_outputs or an older field asks of the answer."""
    found = [*_by_response_format(asked), *_by_structured_outputs(asked), *_by_older_fields(asked)]
    if len(found) > 1:
        fields = sorted({each.param for each in found})
        raise RequestError(
            f"{', '.join(fields)}: {len(found)} formats for one answer: send one of them", param=fields[-1]
        )
    return found[0] if found else None


def _by_response_format(asked: SamplingBody) -> list[Grammar]:
    wanted = asked.response_format
    if wanted is None or wanted.type == "text":
        return []
    if wanted.type == "json_object":
        return [_ANY_OBJECT]
    if wanted.json_schema is None:
        raise RequestError(
            "response_format.json_schema is missing: add a name and a schema", param="response_format"
        )
    return [_schema(wanted.json_schema.schema_, "response_format")]


def _by_structured_outputs(asked: SamplingBody) -> list[Grammar]:
    wanted, param = asked.structured_outputs, "structured_outputs"
    if wanted is None:
        return []
    found = [
        _schema(wanted.json_, param) if wanted.json_ is not None else None,
        _ANY_OBJECT if wanted.json_object else None,
        *_texts(wanted.regex, wanted.choice, wanted.grammar, param),
    ]
    return [grammar for grammar in found if grammar is not None]


def _by_older_fields(asked: SamplingBody) -> list[Grammar]:
    found = [
        _schema(asked.guided_json, "guided_json") if asked.guided_json is not None else None,
        *_texts(asked.guided_regex, None, None, "guided_regex"),
        *_texts(None, asked.guided_choice, None, "guided_choice"),
        *_texts(None, None, asked.guided_grammar, "guided_grammar"),
    ]
    return [grammar for grammar in found if grammar is not None]


def _texts(
    regex: str | None, choice: list[str] | None, grammar: str | None, param: str
) -> list[Grammar | None]:
    return [
        Grammar("regex", regex, param) if regex is not None else None,
        Grammar("choice", json.dumps(choice, ensure_ascii=False), param) if choice else None,
        Grammar("lark", grammar, param) if grammar is not None else None,
    ]


def _schema(schema: Mapping[str, Any], param: str) -> Grammar:
    closed = followable(schema or {"type": "object"}, param)
    return Grammar("json_schema", json.dumps(closed, ensure_ascii=False), param)
