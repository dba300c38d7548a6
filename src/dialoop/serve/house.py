"""What is kept for a time goes when that is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pydantic import Field

from dialoop.config import Settings
from dialoop.store.identity import now_micros
from dialoop.store.registry import Store

PURGE_SECONDS = 60.0
DAY = 86_400 * 1_000_000
LONGEST = 36_500


class Retention(Settings):
    """How long a server keeps what its clients had it keep, in days; 0 = until it is deleted.

    Files, uploads and answers for a second asking have lives of their own.
    """

    responses: int = Field(30, ge=0, le=LONGEST)
    """Responses, after the last that goes on from them; 30 as at OpenAI."""
    stored_completions: int = Field(0, ge=0, le=LONGEST)
    """Chat completions with `store`: they are the next training data."""
    moderation_decisions: int = Field(0, ge=0, le=LONGEST)
    """What the filter decided, and the words where those are kept."""


async def keep_house(store: Store, retention: Retention) -> None:
    """Clear away what killed servers left, then what is over, for as long as the server runs."""
    for kind in (store.files, store.uploads):
        await asyncio.to_thread(kind.tidy)
    while True:
        await asyncio.to_thread(purge, store, retention)
        await asyncio.sleep(PURGE_SECONDS)


def purge(store: Store, retention: Retention) -> None:
    """Delete what is over now, of every project."""
    store.files.purge()
    store.uploads.purge()
    kept: list[tuple[int, Callable[[int], int]]] = [
        (retention.responses, store.responses.purge),
        (retention.stored_completions, store.stored.purge),
        (retention.moderation_decisions, store.moderation.purge),
    ]
    for days, gone in kept:
        if days:
            gone(now_micros() - days * DAY)
