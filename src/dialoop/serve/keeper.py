"""Keeps what is answered with `store`: it is on the disk before the answer ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from dialoop.errors import UnsupportedError
from dialoop.serve.errors import HttpError
from dialoop.store.registry import Store
from dialoop.store.responses import KeptResponse
from dialoop.store.stored import StoredCompletion
from dialoop.store.writer import Write, Writer
from dialoop.types import Answer, Delta, fold

Keep = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Takes the completion or the response, once it is whole. Raises HttpError(503) where the disk is late."""
KEEP_SECONDS = 30.0
_OWN = ("messages", "metadata", "model", "store", "stream", "stream_options")


class Keeper:
    """Stores completions and responses of any project, and reads them after `reading`; `close` at the end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = Writer(store.engine)
        self.close = self._writer.close

    def keep(self, project: str, body: Mapping[str, Any]) -> Keep:
        """What to call with the answer to `body`. Raises OverloadedError where too much waits."""
        self._writer.check_room()
        into = self._store.of(project).stored

        async def done(completion: Mapping[str, Any]) -> None:
            kept = stored(body, completion)
            await self._written(kept.id, lambda connection: into.insert(connection, kept))

        return done

    def keep_response(self, project: str, items: Sequence[Mapping[str, Any]]) -> Keep:
        """What to call with the response to `items`. Raises OverloadedError where too much waits."""
        self._writer.check_room()
        into = self._store.of(project).responses

        async def done(response: Mapping[str, Any]) -> None:
            kept = KeptResponse(
                response["id"], response["previous_response_id"], items, dict(response),
                response["created_at"] * 1_000_000,
            )  # fmt: skip
            await self._written(kept.id, lambda connection: into.insert(connection, kept))

        return done

    async def reading(self, project: str) -> Store:
        """The store of a project, once all that was answered before is in it."""
        await asyncio.to_thread(self._writer.settle)
        return self._store.of(project)

    def chain(self, project: str, response_id: str) -> tuple[KeptResponse, ...]:
        """A kept response and all that it goes on from; it waits for the disk. Raises UnknownRecordError."""
        self._writer.settle()
        return self._store.of(project).responses.chain(response_id)

    async def _written(self, kept_id: str, write: Write) -> None:
        """Once it is on the disk. Raises HttpError(503)."""
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._writer.put(write)), KEEP_SECONDS)
        except TimeoutError:
            raise _late(kept_id) from None


def _late(kept_id: str) -> HttpError:
    return HttpError(
        503, f"the answer was not stored within {KEEP_SECONDS:g} s, and is once the database takes it: look "
        f"for {kept_id} before you ask again",
        code="not_stored_yet", headers={"retry-after": "30", "x-should-retry": "false"},
    )  # fmt: skip


def keep_of(keeper: Keeper | None, project: str, body: Mapping[str, Any]) -> Keep | None:
    """None where the request asks for nothing to be stored. Raises UnsupportedError where nothing can be."""
    if not body.get("store"):
        return None
    if keeper is None:
        raise UnsupportedError("this server keeps no data: leave store out", param="store")
    return keeper.keep(project, body)


def stored(body: Mapping[str, Any], completion: Mapping[str, Any]) -> StoredCompletion:
    """The record of a request and its answer."""
    return StoredCompletion(
        id=completion["id"],
        model=completion["model"],
        created=completion["created"] * 1_000_000,
        messages=body["messages"],
        completion=dict(completion),
        request={name: value for name, value in body.items() if name not in _OWN and value is not None},
        metadata=body.get("metadata") or {},
    )


async def answers_of(said: list[Delta]) -> tuple[Answer, ...]:
    """The whole answers of a stream that has ended."""

    async def again() -> AsyncIterator[Delta]:
        for delta in said:
            yield delta

    return await fold(again())
