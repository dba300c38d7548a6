"""Who sent a request."""

from __future__ import annotations

from dataclasses import dataclass

from dialoop.access.scopes import ALL


@dataclass(frozen=True, slots=True)
class Caller:
    """project: whose files, jobs and stored completions a request sees and adds to.

    key: the id of the key that came with it, None where the server asks for none or for that of --api-key.
    scopes: what the key is for.
    """

    project: str
    key: str | None = None
    scopes: frozenset[str] = ALL
