"""A name for every request, its time, and a line in the log without what it said."""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import UTC, datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialoop.serve.caller import Caller
from dialoop.serve.metrics import Metrics
from dialoop.store.identity import new_id

log = logging.getLogger("dialoop.requests")

_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observer:
    """Takes the client's x-request-id where it is well formed, and sends it, or one of its own, back."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, logged: bool) -> None:
        self._app, self._metrics, self._logged = app, metrics, logged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _GIVEN.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        begun, status = time.monotonic(), 499  # nginx's number for a client that left without an answer

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round((time.monotonic() - begun) * 1000))
            await send(message)

        try:
            await self._app(scope, receive, named)
        finally:
            self._tell(scope, request_id, status, time.monotonic() - begun)

    def _tell(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        handler, method = _handler(scope), scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.http.labels(handler, method, f"{status // 100}xx").inc()
        self._metrics.http_seconds.labels(handler, method).observe(seconds)
        if self._logged:
            caller = scope.get("state", {}).get("caller")
            log.info("%s", json.dumps(_line(request_id, method, handler, status, seconds, caller)))


def _line(
    request_id: str, method: str, handler: str, status: int, seconds: float, caller: Caller | None
) -> dict[str, object]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": request_id,
        "method": method,
        "route": handler,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "project": caller and caller.project,
        "key": caller and caller.key,
    }


def _handler(scope: Scope) -> str:
    """The route's template: a path may hold what a client made up."""
    return str(getattr(scope.get("route"), "path", "none"))
