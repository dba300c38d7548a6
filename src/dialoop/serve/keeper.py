"""Keeps what is answered with `store`, beside the answer and not before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from dialoop.errors import UnsupportedError
from dialoop.store.registry import Store
from dialoop.store.stored import StoredCompletion
from dialoop.store.writer import Writer
from dialoop.types import Answer, Delta, fold

Keep = Callable[[Mapping[str, Any]], None]
"""Takes the completion, once it is whole."""
_OWN = ("messages", "metadata", "model", "store", "stream", "stream_options")


class Keeper:
    """Stores completions of any project. `settle` before reading them, `close` at the end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = Writer(store.engine)
        self.settle, self.close = self._writer.settle, self._writer.close

    def keep(self, project: str, body: Mapping[str, Any]) -> Keep:
        """What to call with the answer to `body`. Raises OverloadedError where too much waits."""
        self._writer.check_room()
        into = self._store.of(project).stored

        def done(completion: Mapping[str, Any]) -> None:
            kept = stored(body, completion)
            self._writer.put(lambda connection: into.insert(connection, kept))

        return done


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
