"""Requests that the server asks itself: the same routes, without a socket or the doors before them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Match
from starlette.types import Message

from dialoop.access.account import charged_to
from dialoop.access.ledger import Ledger
from dialoop.serve.caller import Caller, answering
from dialoop.serve.errors import CatchAll, HttpError

GONE = HttpError(
    401, "the key that this was begun with was revoked or has expired: begin it again with another",
    code="invalid_api_key",
)  # fmt: skip


@dataclass(slots=True)
class Answered:
    """A whole response."""

    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Inside:
    """Asks the routes of `app` as whoever is named, at that key's expense; cancelling the call hangs up.

    A key that was revoked or has expired since is answered with a 401.
    """

    def __init__(self, app: FastAPI, ledger: Ledger | None) -> None:
        routes = AsyncExitStackMiddleware(app.router)
        self._routes = CatchAll(ExceptionMiddleware(routes, handlers=app.exception_handlers))
        self._app, self._ledger = app, ledger

    def has(self, path: str) -> bool:
        """Whether there is such a route to post to."""
        scope = self._scope(path, 0, Caller(""))
        return any(route.matches(scope)[0] is Match.FULL for route in self._app.routes)

    async def post(self, path: str, body: bytes, caller: Caller) -> Answered:
        """The answer to a JSON body."""
        answered, chunks = Answered(), list[bytes]()
        told = False

        async def receive() -> Message:
            nonlocal told
            if told:
                await asyncio.get_running_loop().create_future()  # a client that stays
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.status = message["status"]
                answered.headers = {key.decode().lower(): value.decode() for key, value in message["headers"]}
            else:
                chunks.append(message.get("body", b""))

        account = await self._ledger.account_of(caller.key) if self._ledger and caller.key else None
        if caller.key and account is None:
            return Answered(401, {}, json.dumps(GONE.body).encode())
        with charged_to(account), answering(caller):
            await self._routes(self._scope(path, len(body), caller), receive, send)
        answered.body = b"".join(chunks)
        return answered

    def _scope(self, path: str, size: int, caller: Caller) -> dict[str, Any]:
        return {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % size)],
            "client": None, "server": None, "app": self._app, "state": {"caller": caller},
        }  # fmt: skip
