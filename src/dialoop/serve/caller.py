"""Who sent a request: the project whose data it may see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from fastapi import Request


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


_here: ContextVar[tuple[Caller, str]] = ContextVar("dialoop-request")


@contextmanager
def answering(caller: Caller, request_id: str) -> Iterator[None]:
    """What happens within belongs to that request: for what lies below the routes, which see none."""
    token = _here.set((caller, request_id))
    try:
        yield
    finally:
        _here.reset(token)


def here() -> tuple[Caller, str]:
    """Who sent the request that is being answered, and its id."""
    return _here.get()
