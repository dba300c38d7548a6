"""Rows that could not be used: written down with file, line and reason, and counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row left out. line: from 1; for tables the row, the header being 1. The reason repeats no content."""

    file: str
    line: int
    reason: str


class RejectsFile:
    """`with RejectsFile(path) as rejects:` writes a JSON line for each call; no file where none came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counts: Counter[str] = Counter()
        self._file: IO[str] | None = None

    def __enter__(self) -> RejectsFile:
        self.path.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, rejected: Rejected) -> None:
        """Write one row down."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
        self._file.write(json.dumps(asdict(rejected), ensure_ascii=False) + "\n")
        self._counts[rejected.reason] += 1

    @property
    def total(self) -> int:
        """Rows rejected so far."""
        return self._counts.total()

    @property
    def by_reason(self) -> Mapping[str, int]:
        """Rows by reason, the most frequent first."""
        return dict(self._counts.most_common())
