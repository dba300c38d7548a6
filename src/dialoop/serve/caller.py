"""Who sent a request: the project whose data it may see."""

from __future__ import annotations

from fastapi import Request

from dialoop.access.caller import Caller

__all__ = ["Caller", "caller_of"]


def caller_of(request: Request) -> Caller:
    """The caller that the guard let in."""
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller
