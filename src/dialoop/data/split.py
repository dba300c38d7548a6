"""A deterministic split by conversation group, so that near-twins never straddle it.

A group falls where its hash says, so rows added later move no group; only where a split that was asked
for would stay empty is the group nearest to it moved there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dialoop.config import SplitSettings
from dialoop.data.exact import content_key
from dialoop.data.near import NearIndex
from dialoop.data.spill import batches, scratch_folder
from dialoop.types import Conversation

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")
Again = Callable[[], Iterable[Conversation]]
"""Starts the rows over: each call gives the same conversations in the same order."""

_Ids = NDArray[np.uint64]
_TRAIN, _VALID, _TEST = range(3)
_WHOLE = float(2**64)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where every row goes. parts: index into PARTS, shape (rows,); rule: how groups were made, in words."""

    parts: NDArray[np.uint8]
    rule: str
    groups: int

    def counts(self) -> dict[Part, int]:
        """Rows by part."""
        found = Counter(self.parts.tolist())
        return {part: found[i] for i, part in enumerate(PARTS)}


def plan(
    rows: Again, settings: SplitSettings, *, scratch: Path, threshold: float = 0.85, permutations: int = 128
) -> Plan:
    """Reads the rows once where a metadata key names their groups, twice where their content must."""
    key, groups = _key_groups(rows(), settings.group_by)
    if key is None:
        groups = _content_groups(rows(), scratch, threshold, permutations)
        rule = f"by clusters of near-duplicates (similarity from {threshold:g})"
    else:
        rule = f"by metadata key {key!r}"
    unique, inverse = np.unique(groups, return_inverse=True)
    parts = _parts(np.array([_position(int(group), settings.seed) for group in unique]), settings)
    shares = f"valid {settings.valid:g}, test {settings.test:g}, seed {settings.seed}"
    return Plan(parts[inverse] if len(unique) else np.zeros(0, np.uint8), f"{rule}; {shares}", len(unique))


def split(rows: Again, settings: SplitSettings, *, scratch: Path) -> Iterator[tuple[Part, Conversation]]:
    """Every row with its part, in the order of the rows."""
    planned = plan(rows, settings, scratch=scratch)
    for part, conversation in zip(planned.parts.tolist(), rows(), strict=True):
        yield PARTS[part], conversation


def split_rows(
    conversations: Sequence[Conversation], settings: SplitSettings, *, scratch: Path
) -> tuple[dict[Part, tuple[Conversation, ...]], Plan]:
    """The split of rows held in memory."""
    planned = plan(lambda: conversations, settings, scratch=scratch)
    parts = planned.parts.tolist()
    return {
        name: tuple(c for c, part in zip(conversations, parts, strict=True) if part == i)
        for i, name in enumerate(PARTS)
    }, planned


def _key_groups(rows: Iterable[Conversation], keys: Sequence[str]) -> tuple[str | None, _Ids]:
    """The first key that all rows have, and the hash of its value for each row."""
    shared: dict[str, list[_Ids]] = {key: [] for key in keys}
    for batch in batches(rows):
        for key in list(shared):
            values = [conversation.metadata.get(key) for conversation in batch]
            if any(value is None or value == "" for value in values):
                del shared[key]
            else:
                shared[key].append(np.array([_hash(f"{key}={value}") for value in values], dtype=np.uint64))
        if not shared:
            break
    for key in keys:
        if shared.get(key):
            return key, np.concatenate(shared[key])
    return None, np.zeros(0, dtype=np.uint64)


def _content_groups(rows: Iterable[Conversation], scratch: Path, threshold: float, permutations: int) -> _Ids:
    """The content hash of the first row of each row's cluster."""
    keys: list[_Ids] = [np.zeros(0, dtype=np.uint64)]
    with (
        scratch_folder(scratch, "split-") as folder,
        NearIndex(Path(folder), threshold=threshold, permutations=permutations) as index,
    ):
        for batch in batches(rows):
            keys.append(np.array([content_key(conversation) for conversation in batch], dtype=np.uint64))
            index.append(batch)
        return np.asarray(np.concatenate(keys)[index.clusters()])


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _position(group: int, seed: int) -> float:
    """Where a group lies in [0, 1)."""
    return _hash(f"{seed}:{group}") / _WHOLE


def _parts(positions: NDArray[np.float64], settings: SplitSettings) -> NDArray[np.uint8]:
    """The part of each group: test below `test`, then valid, then train; with three groups none is empty."""
    parts = np.full(len(positions), _TRAIN, dtype=np.uint8)
    parts[positions < settings.test + settings.valid] = _VALID
    parts[positions < settings.test] = _TEST
    if settings.valid == 0:
        parts[parts == _VALID] = _TRAIN
    wanted = [_TRAIN] + [_VALID] * (settings.valid > 0) + [_TEST] * (settings.test > 0)
    order = np.argsort(positions, kind="stable")
    if len(order) >= 3:
        for part in reversed(wanted):
            _fill(parts, order if part != _TRAIN else order[::-1], part)
    return parts


def _fill(parts: NDArray[np.uint8], order: NDArray[np.int64], part: int) -> None:
    """Give an empty part the nearest group of a part that has another."""
    if np.any(parts == part):
        return
    sizes = np.bincount(parts, minlength=len(PARTS))
    for group in order:
        if sizes[parts[group]] > 1:
            parts[group] = part
            return
