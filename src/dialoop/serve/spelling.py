"""Text completions as OpenAI's older API tells them: texts with their prompts, tokens with their places."""

from __future__ import annotations

import time
from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dialoop.serve.reply import prompt_to_openai, usage_to_openai
from dialoop.store.identity import new_id
from dialoop.types import Answer, CompleteRequest, Delta, RankedLogprob, Tokenize, TokenLogprob, Usage

Place = tuple[str, float | None, dict[str, float] | None]
"""A token as text, its log-probability and those of the best in its place."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is told besides the answers' text.

    echo: each begins with its prompt.  logprobs: best tokens in each place, None = nothing.  ids: token ids.
    prompt: vLLM's log-probabilities of the prompt.
    """

    echo: bool = False
    logprobs: int | None = None
    ids: bool = False
    prompt: bool = False


@dataclass(eq=False)
class Spelling:
    """Tells the prompts' texts, and where tokens stand in the text of each choice."""

    engine: Tokenize
    requests: Sequence[CompleteRequest]
    wanted: Wanted
    _decoders: dict[int, Any] = field(default_factory=dict)
    _ends: dict[int, int] = field(default_factory=dict)

    async def prompt(self, number: int, first: Delta | Answer) -> tuple[str, list[tuple[bytes, Place]]]:
        """What a choice begins with: the prompt's text, and its tokens where they are told.

        first: the first delta of all of this prompt's, or any of its answers.
        """
        request = self.requests[number]
        if not self.wanted.echo:
            return "", []
        ids = first.prompt_ids
        whole = await self.engine.detokenize(request.model, ids)
        text = request.prompt if isinstance(request.prompt, str) else whole
        if self.wanted.logprobs is None:
            return text, []
        begun = await self.engine.detokenize(request.model, ids[:1])
        # A token that the tokenizer puts before every text is told and takes no place in it.
        data = begun.encode() if text.startswith(begun) else b""
        shown = [(data, (begun, None, None))]
        return text, shown + [_ranked(place) for place in first.prompt_logprobs[1:]]

    def told(self, number: int, tokens: Sequence[tuple[bytes, Place]]) -> dict[str, Any] | None:
        """OpenAI's older shape; the places go on from those that this choice was told before."""
        if self.wanted.logprobs is None:
            return None
        offsets = [self._offset(number, data) for data, _ in tokens]
        best = [place[2] for _, place in tokens]
        return {
            "tokens": [place[0] for _, place in tokens],
            "token_logprobs": [place[1] for _, place in tokens],
            "top_logprobs": best if self.wanted.logprobs else None,
            "text_offset": offsets,
        }

    def _offset(self, number: int, data: bytes) -> int:
        """Where a token begins, in characters; within one, where that begins."""
        decoder = self._decoders.setdefault(number, getincrementaldecoder("utf-8")("replace"))
        start = self._ends.get(number, 0)
        self._ends[number] = start + len(decoder.decode(data))
        return start


def spelt(data: bytes) -> str:
    """A token as text; parts of characters as OpenAI writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def token(told: TokenLogprob) -> tuple[bytes, Place]:
    """One token of an answer."""
    best = {spelt(each.data): _floored(each.logprob) for each in told.top}
    best.setdefault(spelt(told.data), _floored(told.logprob))
    return told.data, (spelt(told.data), _floored(told.logprob), best)


def _ranked(place: Sequence[RankedLogprob]) -> tuple[bytes, Place]:
    """One token of a prompt, which stands first among the best in its place."""
    best = {spelt(each.data): _floored(each.logprob) for each in sorted(place, key=lambda each: each.rank)}
    return place[0].data, (spelt(place[0].data), _floored(place[0].logprob), best)


def _floored(logprob: float) -> float:
    return max(logprob, -9999.0)


@dataclass(frozen=True, slots=True)
class TextReply:
    """The identity of one response; makes its choices."""

    model: str
    spelling: Spelling
    id: str = field(default_factory=lambda: new_id("cmpl"))
    created: int = field(default_factory=lambda: int(time.time()))
    _opened: set[int] = field(default_factory=set)
    _firsts: dict[int, Delta] = field(default_factory=dict)

    def head(self) -> dict[str, Any]:
        """What every body and chunk begins with."""
        return {
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
            "system_fingerprint": None,
        }  # fmt: skip

    def body(self, choices: Sequence[Mapping[str, Any]], usages: Sequence[Usage]) -> dict[str, Any]:
        """A whole response, or the last chunk of a stream with include_usage."""
        usage = Usage(
            sum(each.prompt_tokens for each in usages),
            sum(each.completion_tokens for each in usages),
            sum(each.cached_tokens for each in usages),
            accepted_tokens=sum(each.accepted_tokens for each in usages),
            rejected_tokens=sum(each.rejected_tokens for each in usages),
        )
        return {**self.head(), "choices": list(choices), "usage": usage_to_openai(usage)}

    async def choice(self, number: int, index: int, answer: Answer) -> dict[str, Any]:
        """A whole answer to the prompt of this number."""
        text, shown = await self.spelling.prompt(number, answer)
        tokens = shown + [token(each) for each in answer.logprobs]
        choice = self._choice(index, text + answer.text, tokens, answer)
        if self.spelling.wanted.ids:
            choice["prompt_token_ids"] = list(answer.prompt_ids)
        if self.spelling.wanted.prompt:
            choice["prompt_logprobs"] = prompt_to_openai(answer.prompt_logprobs)
        return choice

    async def choices(self, number: int, index: int, delta: Delta) -> list[dict[str, Any]]:
        """A delta as the choice of a chunk; an answer's first begins with the prompt."""
        text, shown = "", list[tuple[bytes, Place]]()
        first = self._firsts.setdefault(number, delta)
        if index not in self._opened:
            self._opened.add(index)
            text, shown = await self.spelling.prompt(number, first)
        tokens = shown + [token(each) for each in delta.logprobs]
        if not (text or delta.text or tokens or delta.token_ids or delta.finish_reason):
            return []
        choice = self._choice(index, text + delta.text, tokens, delta)
        return [choice if tokens else {**choice, "logprobs": None}]

    def _choice(
        self, index: int, text: str, tokens: Sequence[tuple[bytes, Place]], said: Delta | Answer
    ) -> dict[str, Any]:
        return {
            "index": index,
            "text": text,
            "logprobs": self.spelling.told(index, tokens),
            "finish_reason": said.finish_reason,
            **({"token_ids": list(said.token_ids)} if self.spelling.wanted.ids else {}),
        }
