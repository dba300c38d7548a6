"""Who sent a request: the project whose data it may see."""

from __future__ import annotations

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
