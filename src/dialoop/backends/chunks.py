"""What an upstream says, as deltas: chunks of a stream, or the one body of a whole answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dialoop.types import Delta, FinishReason, RankedLogprob, Sampling, TokenLogprob, Usage

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


class _Said(_Wire):
    content: str | None = None


class _Choice(_Wire):
    index: int = Field(0, ge=0)
    delta: _Said | None = None
    message: _Said | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Cached(_Wire):
    cached_tokens: int | None = None


class _Usage(_Wire):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None

    def read(self) -> Usage:
        details = self.prompt_tokens_details
        return Usage(self.prompt_tokens, self.completion_tokens, (details and details.cached_tokens) or 0)


class _Ranked(_Wire):
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


class Chunk(_Wire):
    """One event of a stream, or a whole answer; fields that are not read are let be."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    prompt_logprobs: list[dict[str, _Ranked] | None] | None = None
    error: Any = None

    @property
    def says_something(self) -> bool:
        """Whether a token came with it."""
        return any(each.delta is not None and each.delta.content for each in self.choices)


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
        told = _prompt(chunk)
        for choice in chunk.choices:
            for delta in self._choice(choice):
                yield replace(delta, prompt_logprobs=told)
                told = ()

    def end(self) -> Delta:
        """The last delta, with the usage. Raises BrokenAnswerError where an answer has no end."""
        if self._last is None:
            raise BrokenAnswerError("broke off in the middle of an answer")
        return replace(self._last, usage=self._usage or Usage(0, self._pieces))

    def _choice(self, choice: _Choice) -> Iterator[Delta]:
        said = choice.delta or choice.message
        text = (said.content if said else None) or ""
        told = tuple(map(self._token, (choice.logprobs and choice.logprobs.content) or ()))
        if choice.index in self._ended or choice.index >= self._n:
            if text:
                raise BrokenAnswerError("answers more than it was asked")
            return
        if text or told:
            self._pieces += 1
            yield Delta(choice.index, text, logprobs=told)
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
