"""An OpenAI-compatible server (vLLM, llama-server, Ollama, OpenAI, another dialoop) as an engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar, cast

import httpx
from pydantic import BaseModel, ValidationError

from dialoop.backends.breaker import Breaker
from dialoop.backends.chunks import Answers, BrokenAnswerError, Chunk
from dialoop.backends.dialect import body_of
from dialoop.backends.events import MAX_EVENT, EventReader
from dialoop.backends.refusals import MISCONFIGURED_SECONDS, refusal
from dialoop.backends.upstream import Upstream, UpstreamKind, key_of
from dialoop.errors import ConfigError, EngineDownError, UnknownModelError, UnsupportedError
from dialoop.types import ChatRequest, Condition, Delta, Embedded, Served

LIST_SECONDS = 30.0
"""A list of models older than this is asked for anew while the old one is told."""
SOONEST_SECONDS = 2.0
"""Nor is it asked for again before."""
_OWNERS: Mapping[str, UpstreamKind] = {
    "vllm": "vllm", "llamacpp": "llama.cpp", "library": "ollama", "dialoop": "dialoop",
}  # fmt: skip
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Pieces = AsyncGenerator[bytes, None]


class _Model(BaseModel):
    id: str
    created: int = 0
    owned_by: str = ""
    max_model_len: int | None = None
    meta: dict[str, Any] | None = None

    @property
    def context(self) -> int:
        """What vLLM and we tell, or llama.cpp; 0 = not told."""
        told = self.max_model_len or (self.meta or {}).get("n_ctx") or (self.meta or {}).get("n_ctx_train")
        return told if isinstance(told, int) else 0


class _Models(BaseModel):
    data: list[_Model]


class _Embedding(BaseModel):
    embedding: list[float]


class _EmbeddingUsage(BaseModel):
    prompt_tokens: int = 0


class _Embeddings(BaseModel):
    data: list[_Embedding]
    usage: _EmbeddingUsage = _EmbeddingUsage()


class RemoteEngine:
    """The models of one upstream. A request is sent once: `routed.RoutedEngine` tries again, or elsewhere.

    Raises before the first delta: UnknownModelError, UnsupportedError, ContextLengthError, RequestError (the
    upstream refuses), OverloadedError (429), EngineDownError (whatever else kept it from answering).
    """

    def __init__(self, name: str, upstream: Upstream) -> None:
        key_of(name, upstream)
        self.name = name
        self._upstream = upstream
        self._breaker = Breaker(f"upstream {name}", failures=upstream.failures, rest=upstream.rest_seconds)
        self._timeout = httpx.Timeout(None, connect=upstream.connect_seconds)
        self._client = httpx.AsyncClient(timeout=self._timeout, limits=httpx.Limits(max_connections=None))
        self._listed: dict[str, Served] = {}
        self._kind = upstream.kind
        self._heard = -LIST_SECONDS
        self._asking: asyncio.Task[None] | None = None

    @property
    def kind(self) -> UpstreamKind:
        """What it is taken for."""
        return self._kind or "openai"

    def models(self) -> tuple[Served, ...]:
        """Those that it told last, under our names; an old list is renewed in the background."""
        if time.monotonic() - self._heard > LIST_SECONDS:
            self._ask_soon()
        return tuple(self._listed.values())

    def health(self) -> Condition:
        """`failed` while it is left alone, `starting` until it has told its models."""
        if self._breaker.open:
            return "failed"
        return "ok" if self._listed else "starting"

    async def refresh(self) -> None:
        """Ask for its models; what was known stays where it does not answer. Raises EngineDownError."""
        if time.monotonic() - self._heard < SOONEST_SECONDS:
            return
        self._heard = time.monotonic()
        try:
            # A client of its own: this may run in another event loop than the chats, before they do.
            async with httpx.AsyncClient(timeout=self._timeout) as client:
                found = await self._whole(client, "GET", "/models", None, _Models)
        except EngineDownError:
            self._breaker.fail()
            raise
        self._breaker.mend()
        self._listen(found.data)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The upstream's answers as they come; closing this hangs up there."""
        body = body_of(request, self._own_name(request.model), self.kind)
        answers = Answers(request.sampling)
        with self._breaker.watch():
            async with aclosing(self._chunks(body)) as chunks:
                try:
                    async for chunk in chunks:
                        for delta in answers.push(chunk):
                            self._breaker.mend()
                            yield delta
                    yield answers.end()
                except BrokenAnswerError as error:
                    raise EngineDownError(f"upstream {self.name} {error}: try again") from None
        self._breaker.mend()

    async def embed(
        self,
        model: str,
        texts: Sequence[str | Sequence[int]],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> Embedded:
        """As the upstream embeds: OpenAI's API has no word for vectors that are not of length 1."""
        if not normalize:
            raise UnsupportedError(f"upstream {self.name} embeds to length 1 only: leave normalize out")
        body: dict[str, Any] = {"model": self._own_name(model), "input": list(texts)}
        body |= {"encoding_format": "float"} | ({} if dimensions is None else {"dimensions": dimensions})
        with self._breaker.watch():
            found = await self._whole(self._client, "POST", "/embeddings", body, _Embeddings)
            if len(found.data) != len(texts):
                raise EngineDownError(f"upstream {self.name} embedded another number of texts: try again")
        self._breaker.mend()
        return Embedded(tuple(tuple(each.embedding) for each in found.data), found.usage.prompt_tokens)

    async def aclose(self) -> None:
        """Let go of the connections."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._client.aclose()

    def _own_name(self, served: str) -> str:
        if served not in self._listed:
            raise UnknownModelError(served, self._listed)
        return self._upstream.models.get(served, served)

    def _listen(self, told: list[_Model]) -> None:
        if self._kind is None:
            self._kind = next((kind for each in told if (kind := _OWNERS.get(each.owned_by))), None)
        own = {each.id: each for each in told}
        names = self._upstream.models or {each: each for each in own}
        self._listed = {
            name: Served(
                name,
                own[its].created,
                own[its].context or self._upstream.context,
                owner=own[its].owned_by or self.name,
            )
            for name, its in names.items()
            if its in own
        }

    def _ask_soon(self) -> None:
        if self._asking is None or self._asking.done():
            try:
                self._asking = asyncio.get_running_loop().create_task(self._renew())
            except RuntimeError:
                return

    async def _renew(self) -> None:
        try:
            await self.refresh()
        except EngineDownError:
            return

    async def _chunks(self, body: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """The upstream's chunks up to `[DONE]`, or its whole answer as one."""
        if not body["stream"]:
            yield await self._whole(self._client, "POST", "/chat/completions", body, Chunk)
            return
        deadline, reader = self._deadline(), EventReader()
        async with (
            self._sent(self._client, "POST", "/chat/completions", body, deadline) as answer,
            aclosing(cast(Pieces, answer.aiter_bytes())) as pieces,
        ):
            while (piece := await self._by(deadline, anext(pieces, None))) is not None:
                for event in self._read(reader, piece):
                    if event == b"[DONE]":
                        return
                    chunk = self._chunk(event, str(body["model"]))
                    if chunk.says_something:
                        deadline = _now() + self._upstream.between_tokens_seconds
                    yield chunk

    @asynccontextmanager
    async def _sent(
        self, client: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None, when: float
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose status is good and whose body is not read yet."""
        url, headers = self._upstream.url + path, self._headers()
        answer = await self._by(
            when, client.send(client.build_request(method, url, json=body, headers=headers), stream=True)
        )
        async with aclosing(answer):
            if not answer.is_success:
                told = await self._by(when, self._body(answer))
                asked = str((body or {}).get("model", ""))
                raise refusal(self.name, answer.status_code, answer.headers, told, model=asked)
            yield answer

    async def _whole(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        model: type[M],
    ) -> M:
        when = self._deadline()
        async with self._sent(client, method, path, body, when) as answer:
            return self._parse(model, await self._by(when, self._body(answer)))

    async def _body(self, answer: httpx.Response) -> bytes:
        raw = bytearray()
        async for piece in answer.aiter_bytes():
            raw += piece
            if len(raw) > MAX_EVENT:
                raise EngineDownError(f"upstream {self.name} sent more than {MAX_EVENT} bytes at once")
        return bytes(raw)

    def _deadline(self) -> float:
        return _now() + self._upstream.first_token_seconds

    async def _by(self, when: float, work: Awaitable[T]) -> T:
        """The result of `work`. Raises EngineDownError for all that can go wrong on the way."""
        try:
            async with asyncio.timeout_at(when):
                return await work
        except (TimeoutError, httpx.TimeoutException):
            raise EngineDownError(f"upstream {self.name} did not answer in time: try again") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Never its words: they may hold what was sent.
            raise EngineDownError(
                f"upstream {self.name} cannot be reached ({type(error).__name__}): try again"
            ) from None

    def _headers(self) -> dict[str, str]:
        try:
            key = key_of(self.name, self._upstream)
        except ConfigError:
            raise EngineDownError(
                f"upstream {self.name} has no key here: it is to be set by whoever runs this server",
                retry_after=MISCONFIGURED_SECONDS,
            ) from None
        return {} if key is None else {"authorization": f"Bearer {key}"}

    def _read(self, reader: EventReader, piece: bytes) -> list[bytes]:
        try:
            return reader.feed(piece)
        except ValueError:
            raise EngineDownError(f"upstream {self.name} sent an event without end: try again") from None

    def _parse(self, model: type[M], raw: bytes) -> M:
        try:
            return model.model_validate_json(raw)
        except ValidationError:
            raise EngineDownError(
                f"upstream {self.name} sent what is no answer of OpenAI's API: try again"
            ) from None

    def _chunk(self, event: bytes, model: str) -> Chunk:
        chunk = self._parse(Chunk, event)
        if chunk.error is None:
            return chunk
        code = chunk.error.get("code") if isinstance(chunk.error, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        raise refusal(self.name, status, {}, event, model=model)


def _now() -> float:
    return asyncio.get_running_loop().time()
