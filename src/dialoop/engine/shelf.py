"""The adapters beside one base: which are in memory, and which wait on disk for their next use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from dialoop.engine.wire import Shelved
from dialoop.errors import ModelError, RequestError
from dialoop.models.adapters import Adapters, Lora

Place = Literal["here", "coming", "full"]
"""In memory; being read; there is no room for it while those in memory are in use."""


def shelve(key: str, folder: Path, adapters: Adapters, *, pinned: bool, memory: int) -> tuple[Shelved, Lora]:
    """Read an adapter for the first time. Raises ModelError, also where it alone is larger than `memory`."""
    lora = adapters.read(folder)
    if lora.size > memory and not pinned:
        raise ModelError(
            f"{folder}: takes {lora.size} bytes of memory, and adapters that are not pinned get {memory}: "
            f"pin it, or raise the bound with --adapter-memory"
        )
    return Shelved(key, folder, lora.digest, lora.size, pinned), lora


def read_again(shelved: Shelved, adapters: Adapters) -> Lora:
    """What left memory. Raises RequestError where its files are others now: its blocks are not theirs."""
    lora = adapters.read(shelved.folder)
    if lora.digest != shelved.digest:
        name = shelved.key.rpartition("/")[0]
        raise RequestError(
            f"the adapter {name} changed on disk since it was loaded: load it again", param="model"
        )
    return lora


class Shelf:
    """Adapters by key; those that are not pinned take at most `memory` bytes, the longest unused leave first.

    fetch: begins to read an adapter, which `put` takes when it is there. Belongs to the model's thread.
    """

    def __init__(self, adapters: Adapters, memory: int, fetch: Callable[[Shelved], None]) -> None:
        self._adapters = adapters
        self._memory = memory
        self._fetch = fetch
        self._known: dict[str, Shelved] = {}
        self._here: OrderedDict[str, None] = OrderedDict()
        self._coming: set[str] = set()
        self._leaving: set[str] = set()

    @property
    def leaving(self) -> bool:
        """Whether adapters wait for their last job to end."""
        return bool(self._leaving)

    def know(self, shelved: Shelved) -> None:
        """An adapter on disk, which comes for its first job."""
        self._known[shelved.key] = shelved

    def add(self, shelved: Shelved, lora: Lora, used: Collection[str]) -> None:
        """A new adapter; in memory at once where there is room beside those in use."""
        self.know(shelved)
        if self._make_room(shelved, used):
            self.put(shelved.key, lora)

    def put(self, key: str, lora: Lora | None) -> None:
        """What was read, None where it could not be."""
        self._coming.discard(key)
        if lora is not None:
            self._adapters.add(key, lora)
            self._here[key] = None

    def find(self, key: str, used: Collection[str], *, waits: bool) -> Place:
        """Where the adapter is; one that is on disk begins to come.

        used: not to leave memory.  waits: an earlier job waits for room, which none that may leave takes.
        """
        shelved = self._known.get(key)
        if shelved is None or (shelved.pinned and key in self._here):
            return "here"  # also the base, and what was there from the start
        if key in self._coming:
            return "coming"
        if waits and not shelved.pinned:
            return "full"
        if key in self._here:
            self._here.move_to_end(key)
            return "here"
        if not self._make_room(shelved, used):
            return "full"
        self._coming.add(key)
        self._fetch(shelved)
        return "coming"

    def retire(self, key: str) -> None:
        """Forget an adapter when no job needs it any more."""
        self._leaving.add(key)

    def sweep(self, used: Collection[str]) -> None:
        """Let retired adapters go that no job needs."""
        for key in self._leaving - set(used) - self._coming:
            self._leaving.discard(key)
            self._known.pop(key, None)
            self._here.pop(key, None)
            if key in self._adapters.names:
                self._adapters.remove(key)

    def _make_room(self, shelved: Shelved, used: Collection[str]) -> bool:
        if shelved.pinned:
            return True
        free = self._memory - sum(self._size(key) for key in (*self._here, *self._coming))
        idle = [key for key in self._here if key not in used and not self._known[key].pinned]
        if free + sum(map(self._size, idle)) < shelved.size:
            return False
        for key in idle:
            if free >= shelved.size:
                break
            free += self._size(key)
            del self._here[key]
            self._adapters.remove(key)
        return True

    def _size(self, key: str) -> int:
        """Of what counts."""
        shelved = self._known[key]
        return 0 if shelved.pinned else shelved.size
