"""An engine around an engine: what each request uses is measured, and charged to the key that sent it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from dialoop.access.account import current_account
from dialoop.serve.metrics import Metrics, Timing
from dialoop.types import (
    ChatRequest,
    Classifiable,
    Classification,
    CompleteRequest,
    Conversation,
    Delta,
    Embedded,
    Engine,
    Sampling,
    Scored,
    Usage,
)

WATCHED = ("chat", "complete", "score", "embed", "classify")


def watched(engine: Engine, metrics: Metrics) -> Engine:
    """`engine`, its answers, scores and vectors watched; it can do what `engine` can, and nothing else."""
    own = {name: vars(_Watched)[name] for name in WATCHED if hasattr(engine, name)}
    others = [name for name in dir(engine) if not name.startswith("_") and name not in own]
    kind = type("Watched", (_Around,), {name: _passed(name) for name in others} | own)
    return cast(Engine, kind(engine, metrics))


def _passed(name: str) -> property:
    return property(lambda self: getattr(self._engine, name))


@dataclass(slots=True)
class _Use:
    """What a request has used. prompt: an estimate, as long as `usage` is not known."""

    prompt: int
    timing: Timing
    usage: Usage | None = None

    @property
    def counted(self) -> Usage:
        """A piece is about a token, where the engine had no time to count them."""
        return self.usage or Usage(self.prompt if self.timing.pieces else 0, self.timing.pieces)


class _Around:
    def __init__(self, engine: Any, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def _answers(
        self,
        answers: AsyncGenerator[Delta, None],
        model: str,
        texts: Sequence[str | Sequence[int]],
        sampling: Sampling,
    ) -> AsyncGenerator[Delta, None]:
        asked = None if sampling.max_tokens is None else sampling.max_tokens * sampling.made
        with self._watch(model, texts, asked, sampling.made) as use:
            async with aclosing(answers) as deltas:
                async for delta in deltas:
                    use.timing.saw(delta)
                    use.usage = delta.usage or use.usage
                    yield delta

    @contextmanager
    def _watch(
        self, model: str, texts: Sequence[Classifiable], answer: int | None, made: int
    ) -> Iterator[_Use]:
        """answer: tokens asked for at most, None = no bound.  made: answers."""
        prompt, account, room = sum(map(_estimate, texts)), current_account(), self._room(model) * made
        held = account and account.reserve(prompt, None if answer is None else min(answer, room), room)
        use, failure = _Use(prompt, self._metrics.began(model)), None
        try:
            yield use
        except BaseException as error:
            failure = error
            raise
        finally:
            used = use.counted
            use.timing.ended(used, failure, whole=use.usage is not None)
            if account and held:
                account.settle(held, model, used.prompt_tokens, used.completion_tokens)

    def _room(self, model: str) -> int:
        return next((each.context for each in self._engine.models() if each.name == model), 0)


class _Watched(_Around):
    def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As the engine's. Raises OverloadedError or QuotaError where the key has no tokens left."""
        texts = [message.content for message in request.conversation.messages]
        return self._answers(self._engine.chat(request), request.model, texts, request.sampling)

    def complete(self, request: CompleteRequest) -> AsyncGenerator[Delta, None]:
        """As the engine's. Raises as `chat`."""
        return self._answers(
            self._engine.complete(request), request.model, [request.prompt], request.sampling
        )

    async def score(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        """As the engine's."""
        texts = [*(message.content for message in history.messages), *answers]
        with self._watch(model, texts, 0, 1) as use:
            found: tuple[Scored, ...] = await self._engine.score(model, history, answers)
            use.usage = Usage(use.prompt)
            return found

    async def embed(self, model: str, texts: Sequence[str | Sequence[int]], **options: Any) -> Embedded:
        """As the engine's."""
        with self._watch(model, texts, 0, 1) as use:
            found: Embedded = await self._engine.embed(model, texts, **options)
            use.usage = Usage(found.prompt_tokens)
            return found

    async def classify(self, model: str, texts: Sequence[Classifiable]) -> Classification:
        """As the engine's."""
        with self._watch(model, texts, 0, 1) as use:
            found: Classification = await self._engine.classify(model, texts)
            use.usage = Usage(found.prompt_tokens)
            return found


def _estimate(text: Classifiable) -> int:
    """Tokens of a text, before it is known: as OpenAI, one for four bytes. A word is a token."""
    return len(text.encode()) // 4 + 1 if isinstance(text, str) else len(text)
