"""Several engines as one: a model that more than one serves is spread by weight, and fails over."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from dialoop.errors import (
    EngineDownError,
    OverloadedError,
    RequestError,
    UnknownModelError,
    UnsupportedError,
)
from dialoop.types import (
    ChatRequest,
    Classifiable,
    Classification,
    Classify,
    Complete,
    CompleteRequest,
    Condition,
    Conversation,
    Delta,
    Embed,
    Embedded,
    Engine,
    Health,
    Load,
    ModelRef,
    Occupancy,
    Occupied,
    Score,
    Scored,
    Served,
    Tokenize,
    Tokenized,
)

Deltas = AsyncGenerator[Delta, None]
_PASSING = (EngineDownError, OverloadedError)
_ELSEWHERE = (*_PASSING, UnsupportedError, UnknownModelError)


@dataclass(frozen=True, slots=True)
class Route:
    """One engine, and its share of the requests for a model that others serve as well."""

    engine: Engine
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often the engines are tried in all, and how long is waited between: from `first` seconds, doubled
    up to `longest`, less up to a quarter. An engine that asks for a longer wait is not waited for.
    """

    rounds: int = 3
    first: float = 0.5
    longest: float = 8.0

    def wait(self, turn: int, asked: Iterable[RequestError]) -> float | None:
        """Seconds before the round after `turn`; None = no further round."""
        wanted = min((each.retry_after for each in asked if isinstance(each, _PASSING)), default=None)
        if turn + 1 >= self.rounds or wanted is None or wanted > self.longest:
            return None
        backoff: float = min(self.first * math.pow(2, turn), self.longest) * random.uniform(0.75, 1.0)
        return max(backoff, wanted) if wanted > 1 else backoff


@runtime_checkable
class Refresh(Protocol):
    """Learns anew which models it serves. Raises EngineDownError."""

    async def refresh(self) -> None: ...


class RoutedEngine:
    """Every engine's models. Other engines are tried, in rounds, until the first delta; never after.

    An engine that cannot do what a request asks is passed over where another one can.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        patience: Patience = Patience(),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._routes = tuple(routes)
        self._patience, self._sleep = patience, sleep
        self._credit = [0.0] * len(routes)

    def models(self) -> tuple[Served, ...]:
        """Of all engines; a name that several serve is told once, with the shortest context that is known."""
        found: dict[str, Served] = {}
        for route in self._routes:
            for served in route.engine.models():
                known = found.get(served.name)
                if known is None or 0 < served.context < (known.context or served.context + 1):
                    found[served.name] = served
        return tuple(found.values())

    def health(self) -> Condition:
        """`ok` while one can answer."""
        told = [each.engine.health() if isinstance(each.engine, Health) else "ok" for each in self._routes]
        best: tuple[Condition, ...] = ("ok", "starting")
        return next((condition for condition in best if condition in told), "failed")

    def chat(self, request: ChatRequest) -> Deltas:
        """The answer of the first engine that begins one. Raises what the last round ended with."""
        return self._first(request.model, lambda engine: engine.chat(request))

    def complete(self, request: CompleteRequest) -> Deltas:
        """As `chat`, of the engines that complete texts."""

        def ask(engine: Engine) -> AsyncIterator[Delta]:
            if not isinstance(engine, Complete):
                raise UnsupportedError("this model answers dialogues only")
            return engine.complete(request)

        return self._first(request.model, ask)

    async def _first(self, model: str, ask: Callable[[Engine], AsyncIterator[Delta]]) -> Deltas:
        for turn in range(self._patience.rounds):
            refusals: list[RequestError] = []
            for engine in await self._serving(model):
                try:
                    deltas = cast(Deltas, ask(engine))
                except _ELSEWHERE as error:
                    refusals.append(error)
                    continue
                async with aclosing(deltas):
                    try:
                        first = await anext(deltas)
                    except _ELSEWHERE as error:
                        refusals.append(error)
                        continue
                    yield first
                    async for delta in deltas:
                        yield delta
                    return
            wait = self._patience.wait(turn, refusals)
            if wait is None:
                raise _foremost(refusals)
            await self._sleep(wait)

    async def tokenize(self, model: str, text: str | ChatRequest, *, framed: bool = True) -> Tokenized:
        """By the first engine that can."""
        return await (await self._tokenizing(model)).tokenize(model, text, framed=framed)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """By the first engine that can."""
        return await (await self._tokenizing(model)).detokenize(model, ids)

    async def _tokenizing(self, model: str) -> Tokenize:
        for engine in await self._serving(model):
            if isinstance(engine, Tokenize):
                return engine
        raise UnsupportedError("no engine here tells the tokens of this model")

    async def occupancy(self) -> tuple[Occupancy, ...]:
        """Of the engines that tell it."""
        engines = [route.engine for route in self._routes]
        told = await asyncio.gather(*(each.occupancy() for each in engines if isinstance(each, Occupied)))
        return tuple(each for some in told for each in some)

    async def embed(
        self,
        model: str,
        texts: Sequence[str | Sequence[int]],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> Embedded:
        """By the first engine that can."""
        refusals: list[RequestError] = [UnsupportedError("no engine here embeds with this model")]
        for engine in await self._serving(model):
            if isinstance(engine, Embed):
                try:
                    return await engine.embed(model, texts, normalize=normalize, dimensions=dimensions)
                except _ELSEWHERE as error:
                    refusals.append(error)
        raise _foremost(refusals)

    async def score(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        """By the first engine that tells probabilities."""
        for engine in await self._serving(model):
            if isinstance(engine, Score):
                return await engine.score(model, history, answers)
        raise UnsupportedError("no engine here tells the probabilities of answers with this model")

    async def classify(self, model: str, texts: Sequence[Classifiable]) -> Classification:
        """By the first engine that classifies."""
        for engine in await self._serving(model):
            if isinstance(engine, Classify):
                return await engine.classify(model, texts)
        raise UnsupportedError("no engine here classifies with this model")

    async def load(self, ref: ModelRef, *, pinned: bool = False) -> Served:
        """Into the first engine that loads adapters: those of upstreams are theirs to load."""
        for route in self._routes:
            if isinstance(route.engine, Load):
                return await route.engine.load(ref, pinned=pinned)
        raise UnsupportedError("no engine here loads adapters")

    async def unload(self, name: str) -> None:
        """From the engine that serves it."""
        for engine in await self._serving(name):
            if isinstance(engine, Load):
                return await engine.unload(name)
        raise UnsupportedError("this model lies at an upstream: unload it there")

    async def aclose(self) -> None:
        """Close every engine."""
        await asyncio.gather(*(route.engine.aclose() for route in self._routes))

    async def _serving(self, model: str) -> list[Engine]:
        """The engines that serve `model`, in the order to try. Raises UnknownModelError."""
        found = self._order(model)
        if not found:
            asked = [each.engine.refresh() for each in self._routes if isinstance(each.engine, Refresh)]
            await asyncio.gather(*asked, return_exceptions=True)
            found = self._order(model)
        if not found:
            raise UnknownModelError(model, [each.name for each in self.models()])
        return found

    def _order(self, model: str) -> list[Engine]:
        """Smooth weighted round robin, as nginx has it: every engine gets its share, evenly spread."""
        mine = [
            i for i, each in enumerate(self._routes) if any(m.name == model for m in each.engine.models())
        ]
        for i in mine:
            self._credit[i] += self._routes[i].weight
        ranked = sorted(mine, key=lambda i: -self._credit[i])
        if ranked:
            self._credit[ranked[0]] -= sum(self._routes[i].weight for i in mine)
        return [self._routes[i].engine for i in ranked]


def _foremost(refusals: Sequence[RequestError]) -> RequestError:
    """What to tell: a failure that may pass before one that stays."""
    return next((each for each in reversed(refusals) if isinstance(each, _PASSING)), refusals[-1])
