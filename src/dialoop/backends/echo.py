"""A scripted engine without a model: it ships with dialoop so that every client can be tried and tested."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping

from dialoop.errors import ContextLengthError, UnknownModelError, UnsupportedError
from dialoop.types import ChatRequest, Conversation, Delta, FinishReason, Served, Usage

# A Chinese or other wide character, or a word with the white space before it.
_TOKEN = re.compile(
    r"\s*(?:[\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]|[^\s\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]+)|\s+"
)


def tokens_of(text: str) -> list[str]:
    """The echo engine's tokens: words and wide characters, white space in front; they join to `text`."""
    return _TOKEN.findall(text)


class EchoEngine:
    """Answers from `script` (last user turn -> answer) or repeats the last user turn; one token a delta."""

    def __init__(
        self, script: Mapping[str, str] | None = None, *, name: str = "echo", context: int = 2048
    ) -> None:
        self._script = dict(script or {})
        self._served = Served(name=name, created=0, context=context)
        self.open = 0
        """Chats that were begun and neither ended nor were closed."""

    def models(self) -> tuple[Served, ...]:
        """The one model."""
        return (self._served,)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The scripted answer, `n` times over: nothing is drawn, so nothing of that kind counts.

        Raises UnknownModelError, ContextLengthError or UnsupportedError (log-probabilities, formats, forced
        calls) first.
        """
        _refuse(request)
        prompt = self._prompt_tokens(request)
        text, reason, used = self._answer(request, max(1, self._served.context - prompt))
        usage = Usage(prompt, used * request.sampling.made)
        self.open += 1
        try:
            for piece in tokens_of(text):
                for index in range(request.sampling.n):
                    yield Delta(index, piece)
                await asyncio.sleep(0)
            for index in range(request.sampling.n):
                last = index == request.sampling.n - 1
                yield Delta(index, finish_reason=reason, usage=usage if last else None)
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        """Nothing to free."""

    def _prompt_tokens(self, request: ChatRequest) -> int:
        if request.model != self._served.name:
            raise UnknownModelError(request.model, [self._served.name])
        prompt = sum(len(tokens_of(message.content)) + 1 for message in request.conversation.messages)
        if prompt > self._served.context:
            raise ContextLengthError(prompt, self._served.context)
        return prompt

    def _answer(self, request: ChatRequest, room: int) -> tuple[str, FinishReason, int]:
        """The text up to a stop string or the limit, why it ends, and its tokens (the end is one)."""
        asked = last_user_turn(request.conversation)
        tokens = tokens_of(self._script.get(asked, asked))
        limit = min(room, request.sampling.max_tokens or room)
        text = "".join(tokens[:limit])
        found = [(text.find(s) + len(s), text.find(s)) for s in request.sampling.stop if s and s in text]
        if found:
            kept = text[: min(found)[1]]
            return kept, "stop", len(tokens_of(kept)) + 1
        if len(tokens) >= limit:
            return text, "length", limit
        return text, "stop", len(tokens) + 1


def _refuse(request: ChatRequest) -> None:
    sampling = request.sampling
    for field in ("logprobs", "prompt_logprobs"):
        if getattr(sampling, field) is not None:
            raise UnsupportedError("a scripted engine has no log-probabilities: leave them out", param=field)
    if sampling.grammar is not None:
        raise UnsupportedError(
            "a scripted engine keeps to no format: leave it out", param=sampling.grammar.param
        )
    if sampling.token_ids:
        raise UnsupportedError("a scripted engine has no token ids: leave them out", param="return_token_ids")
    if request.choice.mode == "required":
        raise UnsupportedError("a scripted engine calls no tools: let it choose", param="tool_choice")


def last_user_turn(conversation: Conversation) -> str:
    """The text of the last user turn, "" where there is none."""
    return next((m.content for m in reversed(conversation.messages) if m.role == "user"), "")
