"""Conversations parked on disk in batches while a step needs to see all of them first."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dialoop.data.contrast import Contrast
from dialoop.types import Conversation, Message, Tool, ToolCall

BATCH = 256
T = TypeVar("T")


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """`items` in lists of `size`, the last one shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def scratch_folder(parent: Path, prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A folder of its own under `parent`, gone when its block ends."""
    parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=parent, prefix=prefix)


class Spill:
    """An append-only file of batches under a scratch folder; a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, rows: Sequence[tuple[str, Conversation]]) -> None:
        """Park (row name, conversation) pairs."""
        flat = [(name, _flat(conversation)) for name, conversation in rows]
        pickle.dump(flat, self._file, protocol=5)

    def read(self) -> Iterator[list[tuple[str, Conversation]]]:
        """The batches in the order they came."""
        self._file.flush()
        with self._path.open("rb") as file:
            while file.peek(1):
                # Only what this process has written into its own scratch folder is read back.
                yield [(name, _conversation(flat)) for name, flat in pickle.load(file)]


def _flat(conversation: Conversation) -> tuple[Any, ...]:
    """Plain tuples: six times faster to pickle than the values."""
    messages = [
        (
            m.role,
            m.content,
            m.name,
            [(c.id, c.name, c.arguments) for c in m.tool_calls],
            m.tool_call_id,
            m.weight,
            m.reasoning,
        )
        for m in conversation.messages
    ]
    tools = [(t.name, t.description, dict(t.parameters), t.strict) for t in conversation.tools]
    return isinstance(conversation, Contrast), messages, tools, dict(conversation.metadata)


def _conversation(flat: tuple[Any, ...]) -> Conversation:
    contrasts, messages, tools, metadata = flat
    return (Contrast if contrasts else Conversation)(
        tuple(
            Message(role, content, name, tuple(ToolCall(*call) for call in calls), call_id, weight, reasoning)
            for role, content, name, calls, call_id, weight, reasoning in messages
        ),
        tuple(Tool(*tool) for tool in tools),
        metadata,
    )
