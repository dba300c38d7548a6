"""Who sent a request: the project whose data it may see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

_PROJECT: ContextVar[str | None] = ContextVar("dialoop_project", default=None)


@dataclass(frozen=True, slots=True)
class Caller:
    """project: whose files, jobs and stored completions a request sees and adds to.

    key: the id of the key that came with it, None where the server asks for none.
    """

    project: str
    key: str | None = None


def caller_of(request: Request) -> Caller:
    """The caller that the guard let in."""
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller


def acting_project() -> str | None:
    """The project that the present work is done for; None outside requests, unless `acting_for` says which.

    What is one project's alone, such as a fine-tuned model, is there for no other and not for None.
    """
    return _PROJECT.get()


@contextmanager
def acting_for(project: str) -> Iterator[None]:
    """Work in the background for a project, as if it had asked just now."""
    token = _PROJECT.set(project)
    try:
        yield
    finally:
        _PROJECT.reset(token)


class Acting:
    """Has what a request does be done for its caller's project. Stands inside the guard."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        with acting_for(scope["state"]["caller"].project):
            await self._app(scope, receive, send)
