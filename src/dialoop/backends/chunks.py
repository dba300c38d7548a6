"""What an upstream says, as deltas: chunks of a stream, or the one body of a whole answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dialoop.types import CallDelta, Delta, FinishReason, RankedLogprob, Sampling, TokenLogprob, Usage

_REASONS: dict[str, FinishReason] = {
    "stop": "stop", "length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls",
    "content_filter": "content_filter",
}  # fmt: skip
UNKNOWN_TOKEN = -1
"""The id of a token whose upstream tells its bytes alone."""


class BrokenAnswerError(ValueError):
    """An upstream's answer that is cut or makes no sense."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Top(_Wire):
    token: str
    logprob: float
    bytes: list[int] | None = None

    def read(self, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        data = self.token.encode("utf-8", "replace") if self.bytes is None else bytes(self.bytes)
        return TokenLogprob(UNKNOWN_TOKEN, data, self.logprob, top)


class _Token(_Top):
    top_logprobs: list[_Top] = []


class _Logprobs(_Wire):
    content: list[_Token] | None = None


class _Function(_Wire):
    name: str | None = None
    arguments: str | None = None


class _Custom(_Wire):
    name: str | None = None
    input: str | None = None


class _Call(_Wire):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None

    def read(self, place: int) -> CallDelta:
        """place: where it stands, which is its index in an answer that came whole."""
        index = place if self.index is None else self.index
        if self.custom is not None:
            return CallDelta(index, self.custom.input or "", self.id, self.custom.name, "custom")
        function = self.function or _Function()
        return CallDelta(index, function.arguments or "", self.id, function.name)


class _Said(_Wire):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None

    @property
    def thought(self) -> str:
        """DeepSeek's and llama.cpp's name for it, or vLLM's newer one."""
        return self.reasoning_content or self.reasoning or ""

    @property
    def empty(self) -> bool:
        return not (self.content or self.thought or self.refusal or self.tool_calls)


class _Choice(_Wire):
    index: int = Field(0, ge=0)
    delta: _Said | None = None
    message: _Said | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _Cached(_Wire):
    cached_tokens: int | None = None


class _Spent(_Wire):
    reasoning_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class _Usage(_Wire):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Spent | None = None

    def read(self) -> Usage:
        read, spent = self.prompt_tokens_details or _Cached(), self.completion_tokens_details or _Spent()
        return Usage(
            self.prompt_tokens, self.completion_tokens, read.cached_tokens or 0, spent.reasoning_tokens or 0,
            spent.accepted_prediction_tokens or 0, spent.rejected_prediction_tokens or 0,
        )  # fmt: skip


class _Ranked(_Wire):
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


class Chunk(_Wire):
    """One event of a stream, or a whole answer; fields that are not read are let be."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    prompt_logprobs: list[dict[str, _Ranked] | None] | None = None
    prompt_token_ids: list[int] | None = None
    error: Any = None

    @property
    def says_something(self) -> bool:
        """Whether a token came with it."""
        return any(each.delta is not None and not each.delta.empty for each in self.choices)


class Answers:
    """Folds chunks into deltas that keep what `types.Delta` promises, in whatever order they come."""

    def __init__(self, sampling: Sampling) -> None:
        self._n, self._top = sampling.n, sampling.logprobs
        self._usage: Usage | None = None
        self._pieces = 0
        self._ended: set[int] = set()
        self._last: Delta | None = None

    def push(self, chunk: Chunk) -> Iterator[Delta]:
        """The deltas of a chunk; the end of the last answer waits for the usage. Raises BrokenAnswerError."""
        if chunk.usage is not None:
            self._usage = chunk.usage.read()
        told, ids = _prompt(chunk), tuple(chunk.prompt_token_ids or ())
        for choice in chunk.choices:
            for delta in self._choice(choice):
                yield replace(delta, prompt_logprobs=told, prompt_ids=ids)
                told, ids = (), ()

    def end(self) -> Delta:
        """The last delta, with the usage. Raises BrokenAnswerError where an answer has no end."""
        if self._last is None:
            raise BrokenAnswerError("broke off in the middle of an answer")
        return replace(self._last, usage=self._usage or Usage(0, self._pieces))

    def _choice(self, choice: _Choice) -> Iterator[Delta]:
        said = choice.delta or choice.message or _Said()
        told = tuple(map(self._token, (choice.logprobs and choice.logprobs.content) or ()))
        if choice.index in self._ended or choice.index >= self._n:
            if not said.empty:
                raise BrokenAnswerError("answers more than it was asked")
            return
        if not said.empty or told or choice.token_ids:
            self._pieces += 1
            yield Delta(
                choice.index,
                (said.content or "") + (said.refusal or ""),
                logprobs=told,
                reasoning=said.thought,
                calls=tuple(call.read(place) for place, call in enumerate(said.tool_calls or ())),
                token_ids=tuple(choice.token_ids or ()),
            )
        if choice.finish_reason is not None:
            yield from self._finish(Delta(choice.index, finish_reason=_reason(choice.finish_reason)))

    def _finish(self, end: Delta) -> Iterator[Delta]:
        self._ended.add(end.index)
        if len(self._ended) == self._n:
            self._last = end
        else:
            yield end

    def _token(self, token: _Token) -> TokenLogprob:
        return token.read(tuple(each.read() for each in token.top_logprobs[: self._top or 0]))


def _reason(told: str) -> FinishReason:
    if told not in _REASONS:
        raise BrokenAnswerError(f"ended an answer with {told[:32]!r}")
    return _REASONS[told]


def _prompt(chunk: Chunk) -> tuple[tuple[RankedLogprob, ...], ...]:
    return tuple(
        tuple(
            RankedLogprob(int(token), (each.decoded_token or "").encode(), each.logprob, each.rank or 0)
            for token, each in (place or {}).items()
        )
        for place in chunk.prompt_logprobs or ()
    )
