"""The deltas of an answer -> a response, and the events that tell it while it is made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dialoop.serve.errors import HttpError
from dialoop.serve.reply import logprobs_to_openai, padding_of
from dialoop.serve.responses.fields import ResponseBody
from dialoop.serve.responses.items import Status
from dialoop.serve.responses.output import Call, Event, Message, OutputItem, Thoughts
from dialoop.serve.responses.tools import told_tool
from dialoop.store.identity import new_id
from dialoop.types import CallDelta, Delta, FinishReason, TokenLogprob, Usage

_CUT_OFF: Mapping[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ERROR_CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}


@dataclass(slots=True)
class Assembly:
    """One response in the making: `begin`, `take` each delta, then `end`, or `fail` where it comes to that.

    Each tells its events; `response` is the response as it was last told.  stored: whether it will be kept.
    """

    asked: ResponseBody
    stored: bool
    id: str = field(default_factory=lambda: new_id("resp_"))
    created: int = field(default_factory=lambda: int(time.time()))
    response: dict[str, Any] = field(default_factory=dict, init=False)
    _events: int = field(default=0, init=False)
    _done: list[dict[str, Any]] = field(default_factory=list, init=False)
    _open: OutputItem | None = field(default=None, init=False)
    _waiting: list[TokenLogprob] = field(default_factory=list, init=False)
    _reason: FinishReason = field(default="stop", init=False)
    _usage: Usage = field(default=Usage(), init=False)

    def begin(self) -> Iterator[Event]:
        """That there is a response, and that it is being made."""
        self.response = response_to_openai(self.asked, self.id, self.created, stored=self.stored)
        for name in ("created", "in_progress"):
            yield self._numbered({"type": f"response.{name}", "response": self.response})

    def take(self, delta: Delta) -> Iterator[Event]:
        """What a delta thinks, says and calls."""
        for event in self._taken(delta):
            padded = self.asked.stream_options is not None and self.asked.stream_options.include_obfuscation
            yield self._numbered(event | (padding_of(event["delta"]) if padded and "delta" in event else {}))
        self._reason = delta.finish_reason or self._reason
        self._usage = delta.usage or self._usage

    def _taken(self, delta: Delta) -> Iterator[Event]:
        if delta.text or not (delta.reasoning or delta.calls):
            self._waiting += delta.logprobs
        if delta.reasoning:
            thoughts = self._open if isinstance(self._open, Thoughts) else Thoughts(self._next)
            yield from self._go_on_with(thoughts)
            yield thoughts.add(delta.reasoning)
        if delta.text:
            message = self._open if isinstance(self._open, Message) else Message(self._next)
            yield from self._go_on_with(message)
            yield message.say(delta.text, self._logprobs())
        for piece in delta.calls:
            call = self._call(piece)
            yield from self._go_on_with(call)
            if piece.arguments:
                yield call.add(piece.arguments)

    def _call(self, piece: CallDelta) -> Call:
        if isinstance(self._open, Call) and self._open.number == piece.index:
            return self._open
        return Call(self._next, piece.index, piece.id or "", piece.name or "", piece.kind)

    def _logprobs(self) -> list[dict[str, Any]]:
        waiting, self._waiting = self._waiting, []
        return logprobs_to_openai(waiting)

    @property
    def _next(self) -> int:
        """The place of the next item."""
        return len(self._done) + (self._open is not None)

    def _go_on_with(self, item: OutputItem) -> Iterator[Event]:
        if item is not self._open:
            yield from self._close("completed")
            self._open = item
            yield from item.opening()

    def _close(self, status: Status) -> Iterator[Event]:
        if self._open is None:
            return
        if isinstance(self._open, Message):
            self._open.logprobs += self._logprobs()
        yield from self._open.closing(status)
        self._done.append(self._open.told(status))
        self._open = None

    def end(self, judgement: Mapping[str, Any] | None = None) -> Iterator[Event]:
        """The end of the last item, and the whole response. judgement: its `moderation`."""
        cut_off = _CUT_OFF.get(self._reason)
        status: Status = "incomplete" if cut_off else "completed"
        thought = isinstance(self._open, Thoughts)
        for event in (*self._silence(cut_off is None and thought), *self._close(status)):
            yield self._numbered(event)
        self.response = {
            **self.response,
            "status": status,
            "output": self._done,
            "usage": usage_to_openai(self._usage),
            "moderation": judgement,
            "completed_at": None if cut_off else int(time.time()),
            "incomplete_details": {"reason": cut_off} if cut_off else None,
        }
        yield self._numbered({"type": f"response.{status}", "response": self.response})

    def _silence(self, after_thoughts: bool) -> Iterator[Event]:
        """An empty message, where nothing was said nor called."""
        if after_thoughts or (self._open is None and not self._done):
            yield from self._go_on_with(Message(self._next))

    def fail(self, error: HttpError) -> Iterator[Event]:
        """The response, as far as it came, and why it goes no further.

        After `end` it takes the place of the last event, which was not told then.
        """
        if self.response["status"] != "in_progress":
            self._events -= 1
        for event in self._close("incomplete"):
            yield self._numbered(event)
        code = _ERROR_CODES.get(error.status, "server_error")
        told = {"code": code, "message": error.message}
        self.response = {**self.response, "status": "failed", "output": self._done, "error": told}
        yield self._numbered({"type": "response.failed", "response": self.response})

    def _numbered(self, event: Event) -> Event:
        self._events += 1
        return {**event, "sequence_number": self._events - 1}


def response_to_openai(
    asked: ResponseBody, response_id: str, created: int, *, stored: bool
) -> dict[str, Any]:
    """A response of which nothing is made yet, with what was asked for."""
    return {
        "id": response_id, "object": "response", "created_at": created, "status": "in_progress",
        "background": False, "completed_at": None, "error": None, "incomplete_details": None,
        "output": [], "usage": None, "moderation": None, "store": stored, "service_tier": "default",
        **_as_asked(asked), "text": _text(asked), "tools": list(map(told_tool, asked.tools)),
        "tool_choice": asked.tool_choice or "auto",
        "reasoning": {"effort": asked.reasoning.effort, "summary": asked.reasoning.summary},
    }  # fmt: skip


_TOLD: Sequence[str] = (
    "model", "instructions", "previous_response_id", "max_output_tokens", "max_tool_calls", "metadata",
    "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "temperature",
    "top_logprobs", "top_p", "truncation", "user",
)  # fmt: skip


def _as_asked(asked: ResponseBody) -> dict[str, Any]:
    prompt = asked.prompt and asked.prompt.model_dump(exclude_none=True)
    return {"prompt": prompt, **{name: getattr(asked, name) for name in _TOLD}}


def _text(asked: ResponseBody) -> dict[str, Any]:
    wanted = asked.text.format
    told: dict[str, Any] = {"type": wanted.type}
    if wanted.type == "json_schema":
        told |= {"name": wanted.name, "description": wanted.description, "schema": wanted.schema_}
        told["strict"] = True
    return {"format": told, "verbosity": asked.text.verbosity or "medium"}


def usage_to_openai(usage: Usage) -> dict[str, Any]:
    """Usage as responses have it."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
