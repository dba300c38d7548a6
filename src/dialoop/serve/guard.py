"""Who may come in: a key, a Host header, and a name for every request."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialoop.serve.caller import Caller, answering
from dialoop.serve.errors import HttpError
from dialoop.store.identity import new_id

OPEN_PATHS = frozenset({"/health"})
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """Refuses before any route is looked up; only OPEN_PATHS need no key.

    hosts: accepted Host names without port, None = any; stops web pages that rebind their name to loopback.
    project: whose data those who come in see.
    """

    def __init__(
        self, app: ASGIApp, *, api_key: str | None, hosts: Collection[str] | None, project: str
    ) -> None:
        self._app = app
        self._caller = Caller(project)
        self._key = None if api_key is None else api_key.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        refusal = self._refusal(scope)
        scope.setdefault("state", {})["caller"] = self._caller
        with answering(self._caller, request_id):
            await (refusal.response() if refusal else self._app)(scope, receive, named)

    def _refusal(self, scope: Scope) -> HttpError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _without_port(host).lower() not in self._hosts:
            return HttpError(
                403,
                "this Host is not served: call the server localhost, or start it with --host and --api-key",
                code="host_not_allowed",
            )
        if self._key is None or scope["path"] in OPEN_PATHS:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secrets.compare_digest(key.strip().encode(), self._key):
            return None
        return HttpError(
            401,
            "no valid API key came with the request: send the header `Authorization: Bearer KEY`",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def _without_port(host: str) -> str:
    """`[::1]:80` and `name:80` without the port."""
    bracket = host.find("]")
    return host[: bracket + 1] if bracket >= 0 else host.partition(":")[0]
