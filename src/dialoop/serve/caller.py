"""Who sent a request: the project whose data it may see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from fastapi import Request

from dialoop.access.caller import Caller

__all__ = ["Caller", "acting_for", "acting_project", "answering", "caller_of", "here"]

_here: ContextVar[tuple[Caller, str]] = ContextVar("dialoop-request")


def caller_of(request: Request) -> Caller:
    """The caller that the guard let in."""
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller


@contextmanager
def answering(caller: Caller, request_id: str = "") -> Iterator[None]:
    """What happens within belongs to that request: for what lies below the routes, which see none."""
    token = _here.set((caller, request_id))
    try:
        yield
    finally:
        _here.reset(token)


def here() -> tuple[Caller, str]:
    """Who sent the request that is being answered, and its id."""
    return _here.get()


def acting_project() -> str | None:
    """The project that the present work is done for; None outside requests, unless `acting_for` says which.

    What is one project's alone, such as a fine-tuned model, is there for no other and not for None.
    """
    found = _here.get(None)
    return None if found is None else found[0].project


def acting_for(project: str) -> AbstractContextManager[None]:
    """Work in the background for a project, as if it had asked just now."""
    return answering(Caller(project))
