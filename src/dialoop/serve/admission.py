"""How much is let in: so many requests at once, and none while the server drains."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from dialoop.errors import OverloadedError
from dialoop.serve.errors import HttpError
from dialoop.serve.routes import asks_a_model


@dataclass(slots=True)
class Doors:
    """max_open: requests to models that may be open, None = any number.  draining: no new ones."""

    max_open: int | None = None
    open: int = 0
    draining: bool = False


class Admission:
    """Refuses before a body is read: refused work costs next to nothing."""

    def __init__(self, app: ASGIApp, *, doors: Doors) -> None:
        self._app = app
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        if self._doors.draining:
            raise HttpError(
                503, "the server is ending and takes no more work: try again elsewhere, or in some seconds",
                code="draining", headers={"retry-after": "5", "connection": "close"},
            )  # fmt: skip
        if not asks_a_model(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        self._check_room()
        self._doors.open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._doors.open -= 1

    def _check_room(self) -> None:
        doors = self._doors
        if doors.max_open is not None and doors.open >= doors.max_open:
            raise OverloadedError(f"{doors.open} requests are open and {doors.max_open} may be: try again")
