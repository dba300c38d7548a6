"""Models that join an engine while it serves: adapters beside their base, whole models in a process each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from dialoop.errors import (
    EngineDownError,
    ModelError,
    OverloadedError,
    StoreError,
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

log = logging.getLogger("dialoop.engine")

Deltas = AsyncGenerator[Delta, None]


@dataclass(slots=True, eq=False)
class Guest:
    """A model that may be asked for. find: where it lies; raises StoreError.

    host: who answers for it now, None while nobody does.  used: when it was last asked for, by a counter.
    open: requests that it is answering.
    """

    served: Served
    find: Callable[[], ModelRef]
    host: Engine | None = None
    used: int = 0
    open: int = 0
    coming: asyncio.Lock = field(default_factory=asyncio.Lock)


class Pool:
    """An engine, and guests that come to memory when they are first asked for.

    Implements every protocol of `dialoop.types`; what the engine inside does not is refused as unsupported.
    start: an engine of one model.  limit: such engines at a time; the longest unused leaves for another, and
    a request waits for none: where all are in use it is refused.
    """

    def __init__(self, engine: Engine, start: Callable[[ModelRef], Engine], *, limit: int) -> None:
        self._engine, self._start, self._limit = engine, start, limit
        self._guests: dict[str, Guest] = {}
        self._apart: list[Guest] = []
        self._room = asyncio.Lock()
        self._clock = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def offer(self, served: Served, find: Callable[[], ModelRef]) -> None:
        """From now on there is a model of that name. From any thread."""
        self._guests[served.name] = Guest(served, find)

    def withdraw(self, name: str) -> None:
        """There is no such model any more; answers that have begun are finished. From any thread."""
        guest = self._guests.pop(name, None)
        if guest is not None and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._dismiss(guest), self._loop)

    def models(self) -> tuple[Served, ...]:
        """The engine's and the guests, by name."""
        found = {served.name: served for served in self._engine.models()}
        found |= {name: guest.served for name, guest in list(self._guests.items())}
        return tuple(found[name] for name in sorted(found))

    def health(self) -> Condition:
        """Of the engine: a guest's process is started again when it is asked for."""
        return self._engine.health() if isinstance(self._engine, Health) else "ok"

    def chat(self, request: ChatRequest) -> Deltas:
        """As the engine inside."""
        return self._answer(request.model, lambda host: host.chat(request))

    def complete(self, request: CompleteRequest) -> Deltas:
        """As the engine inside."""

        def ask(host: Engine) -> AsyncIterator[Delta]:
            if not isinstance(host, Complete):
                raise _unable("completes no text")
            return host.complete(request)

        return self._answer(request.model, ask)

    async def _answer(self, model: str, ask: Callable[[Engine], AsyncIterator[Delta]]) -> Deltas:
        async with self._host(model) as host, aclosing(cast(Deltas, ask(host))) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, model: str, text: str | ChatRequest, *, framed: bool = True) -> Tokenized:
        """As the engine inside."""
        async with self._host(model) as host:
            return await _tokenizing(host).tokenize(model, text, framed=framed)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """As the engine inside."""
        async with self._host(model) as host:
            return await _tokenizing(host).detokenize(model, ids)

    async def occupancy(self) -> tuple[Occupancy, ...]:
        """Of the engine, and of the guests that have a process."""
        hosts = [self._engine, *(guest.host for guest in self._apart if guest.host is not None)]
        told = await asyncio.gather(*(host.occupancy() for host in hosts if isinstance(host, Occupied)))
        return tuple(each for some in told for each in some)

    async def score(self, model: str, history: Conversation, answers: Sequence[str]) -> tuple[Scored, ...]:
        """As the engine inside."""
        async with self._host(model) as host:
            if not isinstance(host, Score):
                raise _unable("tells no probabilities")
            return await host.score(model, history, answers)

    async def embed(
        self,
        model: str,
        texts: Sequence[str | Sequence[int]],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> Embedded:
        """As the engine inside."""
        async with self._host(model) as host:
            if not isinstance(host, Embed):
                raise _unable("embeds no texts")
            return await host.embed(model, texts, normalize=normalize, dimensions=dimensions)

    async def classify(self, model: str, texts: Sequence[Classifiable]) -> Classification:
        """As the engine inside."""
        async with self._host(model) as host:
            if not isinstance(host, Classify):
                raise _unable("classifies no texts")
            return await host.classify(model, texts)

    async def load(self, ref: ModelRef, *, pinned: bool = False) -> Served:
        """As the engine inside."""
        return await self._loading.load(ref, pinned=pinned)

    async def unload(self, name: str) -> None:
        """As the engine inside."""
        await self._loading.unload(name)

    @property
    def _loading(self) -> Load:
        if not isinstance(self._engine, Load):
            raise _unable("loads no adapters")
        return self._engine

    async def aclose(self) -> None:
        """End the engine and the guests' own."""
        apart = [guest.host for guest in self._apart if guest.host is not None]
        await asyncio.gather(self._engine.aclose(), *(engine.aclose() for engine in apart))

    @asynccontextmanager
    async def _host(self, model: str) -> AsyncIterator[Engine]:
        """Who answers for `model`, for as long as the context lasts."""
        guest = self._guests.get(model)
        if guest is None:
            yield self._engine
            return
        self._clock += 1
        guest.used, guest.open = self._clock, guest.open + 1
        try:
            yield await self._come(guest)
        finally:
            guest.open -= 1
            if self._guests.get(model) is not guest:
                await self._dismiss(guest)

    async def _come(self, guest: Guest) -> Engine:
        self._loop = asyncio.get_running_loop()
        async with guest.coming:
            if guest.host is None:
                try:
                    ref = await asyncio.to_thread(guest.find)
                    guest.host = await self._beside(ref) or await self._start_apart(guest, ref)
                except (ModelError, StoreError) as error:
                    log.error("model %s cannot be loaded: %s", guest.served.name, error)
                    raise EngineDownError(
                        f"model {guest.served.name!r} cannot be loaded: the server's log says why; try again "
                        f"once that is mended",
                        retry_after=60,
                    ) from None
        return guest.host

    async def _beside(self, ref: ModelRef) -> Engine | None:
        """The engine inside, which has taken an adapter in; None where it cannot."""
        if ref.adapter is None or not isinstance(self._engine, Load):
            return None
        try:
            await self._engine.load(ref)
        except ModelError as error:
            log.info("%s gets a process of its own: %s", ref.name, error)
            return None
        return self._engine

    async def _start_apart(self, guest: Guest, ref: ModelRef) -> Engine:
        async with self._room:
            if len(self._apart) >= self._limit:
                idle = [each for each in self._apart if not each.open]
                if not idle:
                    raise OverloadedError(
                        f"{len(self._apart)} fine-tuned models are in use, each in a process of its own, and "
                        f"{self._limit} may be: try again, or serve with a higher --max-tuned",
                        retry_after=5,
                    )
                await self._dismiss(min(idle, key=lambda each: each.used))
            self._apart.append(guest)
            try:
                return await asyncio.to_thread(self._start, ref)
            except BaseException:
                self._apart.remove(guest)
                raise

    async def _dismiss(self, guest: Guest) -> None:
        """Let a guest leave memory, unless it is answering."""
        if guest.open or guest.host is None:
            return
        host, guest.host = guest.host, None
        if guest in self._apart:
            self._apart.remove(guest)
            await host.aclose()
        elif isinstance(host, Load):
            with contextlib.suppress(UnknownModelError):
                await host.unload(guest.served.name)


def _tokenizing(host: Engine) -> Tokenize:
    if not isinstance(host, Tokenize):
        raise _unable("does not tell its tokens")
    return host


def _unable(refusal: str) -> UnsupportedError:
    return UnsupportedError(f"this engine {refusal}: ask another model", param="model")
