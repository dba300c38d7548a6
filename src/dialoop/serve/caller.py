"""Who sent a request: the project whose data it may see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fastapi import Request

from dialoop.access.caller import Caller

__all__ = ["Caller", "answering", "caller_of", "here"]


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
