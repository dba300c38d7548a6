"""A small real server that speaks OpenAI's API and fails as it is told to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import uvicorn

from dialoop.backends.remote import RemoteEngine
from dialoop.backends.upstream import Upstream
from dialoop.serve.server import bind, url_of
from dialoop.types import Answer, ChatRequest, Conversation, Message, Sampling, fold

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Act = Callable[["Faulty", Send, Receive], Awaitable[None]]


class Faulty:
    """An ASGI app. acts: what it does with each request to come, in order; then it answers `Hi there`.

    seen: the headers and body of each request but those for the models.  left: clients that hung up on it.
    """

    def __init__(self, owner: str = "dialoop") -> None:
        self.acts: list[Act] = []
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.rows: list[dict[str, Any]] = [{"id": "m", "created": 7, "owned_by": owner, "max_model_len": 99}]
        self.left = threading.Semaphore(0)
        self.released = threading.Event()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["path"].endswith("/models"):
            await whole(200, {"object": "list", "data": self.rows})(self, send, receive)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((headers, json.loads(raw)))
        await (self.acts.pop(0) if self.acts else says("Hi", " there"))(self, send, receive)


@contextmanager
def running(app: Faulty) -> Iterator[str]:
    """The base URL, `/v1` included."""
    listening = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"{url_of(listening)}/v1"
    finally:
        app.released.set()
        server.should_exit = True
        thread.join()
        listening.close()


def whole(status: int, body: object, headers: Mapping[str, str] | None = None) -> Act:
    """One JSON body."""

    async def act(app: Faulty, send: Send, receive: Receive) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        await _start(send, status, {"content-type": "application/json", **(headers or {})})
        await send({"type": "http.response.body", "body": raw})

    return act


def error(status: int, message: str = "no", headers: Mapping[str, str] | None = None, **fields: Any) -> Act:
    """OpenAI's error object."""
    return whole(status, {"error": {"message": message, "type": "x", "param": None, **fields}}, headers)


def chunk(text: str | None = None, end: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": {} if text is None else {"content": text}, "finish_reason": end}
    body = {"object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def usage(prompt: int = 3, completion: int = 2) -> bytes:
    told = {"prompt_tokens": prompt, "completion_tokens": completion}
    return b"data: " + json.dumps({"choices": [], "usage": told}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def streams(*pieces: bytes, then: Act | None = None) -> Act:
    """These bytes, each sent alone; then the end of the response, or something else."""

    async def act(app: Faulty, send: Send, receive: Receive) -> None:
        await _start(send, 200, {"content-type": "text/event-stream"})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if then is not None:
            await then(app, send, receive)
        await send({"type": "http.response.body", "body": b""})

    return act


def says(*texts: str) -> Act:
    return streams(*map(chunk, texts), chunk(end="stop"), usage(), DONE)


async def hangs(app: Faulty, send: Send, receive: Receive) -> None:
    """Say nothing until the client hangs up."""
    while not app.released.is_set():
        try:
            async with asyncio.timeout(0.1):
                if (await receive())["type"] == "http.disconnect":
                    app.left.release()
                    return
        except TimeoutError:
            pass


async def cut(app: Faulty, send: Send, receive: Receive) -> None:
    """End the connection without ending the response."""
    raise ConnectionError


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": told})


ASKED = ChatRequest("m", Conversation((Message("user", "Hi"),)), Sampling())


async def heard(url: str, **settings: Any) -> RemoteEngine:
    engine = RemoteEngine("up", Upstream(url=url, **settings))
    await engine.refresh()
    return engine


async def ask(engine: RemoteEngine, request: ChatRequest = ASKED, **sampling: Any) -> tuple[Answer, ...]:
    return await fold(engine.chat(replace(request, sampling=replace(request.sampling, **sampling))))


async def sent(faulty: Faulty, engine: RemoteEngine, **sampling: Any) -> dict[str, Any]:
    """The body that the upstream gets for such a request."""
    await ask(engine, **sampling)
    return faulty.seen[-1][1]
