"""The echo engine, made to answer by a script and to remember what it heard."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

from dialoop.backends.echo import EchoEngine
from dialoop.chat.wire import message_to_openai
from dialoop.types import CallDelta, ChatRequest, Delta, FinishReason, Usage


class Scripted(EchoEngine):
    """deltas: of every answer, instead of an echo.  failure: raised after them."""

    def __init__(
        self,
        deltas: Iterable[Delta] | None = None,
        failure: Exception | None = None,
        script: Mapping[str, str] | None = None,
        context: int = 2048,
    ) -> None:
        super().__init__(script, context=context)
        self._deltas = None if deltas is None else list(deltas)
        self._failure = failure
        self.heard: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.heard.append(request)
        if self._deltas is None:
            async for delta in super().chat(request):
                yield delta
            return
        for delta in self._deltas:
            yield delta
        if self._failure is not None:
            raise self._failure

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Of the last request, as OpenAI writes them."""
        return [message_to_openai(message) for message in self.heard[-1].conversation.messages]


def call(index: int, name: str, *pieces: str, kind: Any = "function") -> list[Delta]:
    """The deltas of a call."""
    first = Delta(calls=(CallDelta(index, id=f"call_{index}", name=name, kind=kind),))
    return [first, *(Delta(calls=(CallDelta(index, piece, kind=kind),)) for piece in pieces)]


def end(reason: FinishReason = "stop") -> Delta:
    """The last delta."""
    return Delta(finish_reason=reason, usage=Usage(7, 5, cached_tokens=3, reasoning_tokens=2))
