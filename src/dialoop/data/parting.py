"""Splitting a file of conversations into train, valid and test files, with a leak check between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dialoop.config import SplitSettings
from dialoop.data.cleaning import Input, published
from dialoop.data.near import near_clusters
from dialoop.data.rejects import RejectsFile
from dialoop.data.sources import OnReject, dialogues, read_detected
from dialoop.data.spill import batches, scratch_folder
from dialoop.data.split import PARTS, Again, Part, plan
from dialoop.data.writer import openai_line
from dialoop.errors import DataError
from dialoop.types import Conversation

REJECTS, SUMMARY = "rejects.jsonl", "split.json"
LEFT_OUT = len(PARTS)


@dataclass(frozen=True, slots=True)
class Parted:
    """rows: by part; leaked: rows of valid and test whose near-duplicate family reaches into train."""

    rows: dict[Part, int]
    rule: str
    groups: int
    leaked: dict[Part, int]
    removed: int
    rejected: int


def split_files(
    source: Input,
    settings: SplitSettings,
    out: Path,
    *,
    check_leaks: bool = True,
    remove_leaks: bool = False,
    threshold: float = 0.85,
) -> Parted:
    """Writes train.jsonl, valid.jsonl, test.jsonl and split.json under `out`, all together at the end."""
    names = (*(f"{part}.jsonl" for part in PARTS), REJECTS, SUMMARY)
    with published(out, names) as part:
        scratch = part / "scratch"
        rows = _Rows(source, part / REJECTS)
        planned = plan(rows, settings, scratch=scratch, threshold=threshold)
        if not len(planned.parts):
            raise DataError(
                f"{', '.join(map(str, source.files))}: no conversation to split: check the file's format"
            )
        leaked = _leaked(rows, planned.parts, scratch, threshold) if check_leaks or remove_leaks else None
        found = (
            {p: int(np.sum(leaked & (planned.parts == i))) for i, p in enumerate(PARTS)}
            if leaked is not None
            else {}
        )
        where = (
            np.where(leaked, LEFT_OUT, planned.parts)
            if leaked is not None and remove_leaks
            else planned.parts
        )
        counts = _write_parts(rows, where, part)
        removed = len(where) - sum(counts.values())
        parted = Parted(counts, planned.rule, planned.groups, found, removed, rows.rejected or 0)
        _write_summary(part, parted)
    return parted


class _Rows:
    """The conversations of the files, to be read again and again; the first time rejects are written down."""

    def __init__(self, source: Input, rejects: Path) -> None:
        self._detected = source.detected()
        self._rejects = rejects
        self.rejected: int | None = None

    def __call__(self) -> Iterator[Conversation]:
        if self.rejected is not None:
            yield from self._read(lambda _: None)
            return
        with RejectsFile(self._rejects) as rejects:
            yield from self._read(rejects)
            self.rejected = rejects.total

    def _read(self, reject: OnReject) -> Iterator[Conversation]:
        for path, detected in self._detected:
            items = read_detected(path, detected, on_reject=reject)
            yield from dialogues(items, on_reject=reject, file=str(path))


def _leaked(rows: Again, parts: NDArray[np.uint8], scratch: Path, threshold: float) -> NDArray[np.bool_]:
    """Rows outside train whose family of near-duplicates has a row in train."""
    with scratch_folder(scratch, "leaks-") as folder:
        labels = near_clusters(batches(rows()), Path(folder), threshold=threshold, permutations=128)
    train = parts == PARTS.index("train")
    in_train = np.zeros(len(labels), dtype=bool)
    in_train[labels[train]] = True
    return np.asarray(in_train[labels] & ~train)


def _write_parts(rows: Again, where: NDArray[np.uint8], folder: Path) -> dict[Part, int]:
    with ExitStack() as stack:
        files = [
            stack.enter_context((folder / f"{part}.jsonl").open("w", encoding="utf-8", newline="\n"))
            for part in PARTS
        ]
        for place, conversation in zip(where.tolist(), rows(), strict=True):
            if place != LEFT_OUT:
                files[place].write(openai_line(conversation))
    return {part: int(np.sum(where == i)) for i, part in enumerate(PARTS)}


def _write_summary(folder: Path, parted: Parted) -> None:
    values = {
        "rows": parted.rows,
        "rule": parted.rule,
        "groups": parted.groups,
        "leaked": parted.leaked,
        "removed": parted.removed,
        "rejected": parted.rejected,
    }
    (folder / SUMMARY).write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
