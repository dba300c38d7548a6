"""Exact duplicates: a 64-bit hash of roles and texts, looked up in sorted runs of 8 bytes a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from dialoop.types import Conversation

Hashes = NDArray[np.uint64]


def content_key(conversation: Conversation) -> int:
    """64 bits over roles, texts and tool calls; metadata does not count.

    Two different rows of ten million share a key with probability 3e-6.
    """
    parts: list[str] = []
    for m in conversation.messages:
        parts += (m.role, m.content)
        for call in m.tool_calls:
            parts += (call.name, call.arguments)
    text = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


class SeenKeys:
    """The keys seen so far, in sorted runs that double in size: 8 bytes a key, log n look-ups a batch."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def first_seen(self, keys: Sequence[int]) -> NDArray[np.bool_]:
        """Which of `keys` are new, here and in the batch; all are remembered. Shape (len(keys),)."""
        batch = np.asarray(keys, dtype=np.uint64)
        unique, first = np.unique(batch, return_index=True)
        known = np.zeros(len(unique), dtype=bool)
        for run in self._runs:
            known |= _contains(run, unique)
        new = np.zeros(len(batch), dtype=bool)
        new[first[~known]] = True
        self._add(unique[~known])
        return new

    def _add(self, run: Hashes) -> None:
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort(kind="stable")
        if len(run):
            self._runs.append(run)


def _contains(run: Hashes, keys: Hashes) -> NDArray[np.bool_]:
    at = np.searchsorted(run, keys)
    at[at == len(run)] = 0
    return np.asarray(run[at] == keys)


def content_keys(conversations: Iterable[Conversation]) -> Hashes:
    """The keys of all conversations, shape (n,)."""
    return np.fromiter(map(content_key, conversations), dtype=np.uint64)
