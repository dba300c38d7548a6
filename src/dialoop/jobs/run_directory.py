"""What the runner and the process of a job say to each other: files in the job's run directory.

job.json      what is to be done, written by the runner before the process begins
events.jsonl  what happens, a line each, appended by the process
result.json   how it ended, written last; none where the process fell
.process      the process's id; locked by it as long as it lives, whatever becomes of its runner
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialoop.store.lease import held
from dialoop.types import ModelRef

INTERRUPTED = 75
"""Exit code of a process that was told to leave: it goes on from its checkpoint (EX_TEMPFAIL)."""
BUSY = 76
"""Exit code of a process that found another in its directory."""


def as_written(ref: ModelRef) -> list[str | None]:
    """A model in an order."""
    return [ref.name, str(ref.base), None if ref.adapter is None else str(ref.adapter)]


def as_read(written: Sequence[str]) -> ModelRef:
    """What `as_written` wrote."""
    name, base, adapter = written
    return ModelRef(name, Path(base), Path(adapter) if adapter else None)


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The directory of one job. Each file has one writer."""

    path: Path

    def order(self, order: Mapping[str, Any]) -> None:
        """Say what is to be done, in one step; how an earlier process ended is forgotten."""
        (self.path / "result.json").unlink(missing_ok=True)
        self._write("job.json", order)

    @property
    def ordered(self) -> dict[str, Any]:
        """What is to be done."""
        return dict(json.loads((self.path / "job.json").read_text(encoding="utf-8")))

    def tell(self, kind: str, **values: Any) -> None:
        """Append an event."""
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **values}, ensure_ascii=False) + "\n")

    def mend(self) -> None:
        """End a line that a fallen process left half-written, so that no other is lost with it."""
        with (self.path / "events.jsonl").open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.write(b"\n")

    def heard(self, start: int) -> tuple[list[dict[str, Any]], int]:
        """The events from byte `start` on, and where the next begins; a line half-written waits."""
        try:
            with (self.path / "events.jsonl").open("rb") as file:
                file.seek(start)
                raw = file.read()
        except FileNotFoundError:
            return [], start
        whole = raw[: raw.rfind(b"\n") + 1]
        return [event for line in whole.splitlines() if (event := _event(line))], start + len(whole)

    def end(self, result: Mapping[str, Any]) -> None:
        """Say how it ended."""
        self._write("result.json", result)

    @property
    def result(self) -> dict[str, Any] | None:
        """How it ended, None where that was not said."""
        try:
            return dict(_loads((self.path / "result.json").read_bytes()))
        except FileNotFoundError:
            return None

    def occupied(self) -> AbstractContextManager[bool]:
        """Hold the directory while the block runs; False where another process holds it."""
        return held(self.path / ".process")

    def steps(self) -> list[dict[str, Any]]:
        """The updates that a run which has ended made, in order."""
        return list(map(_loads, (self.path / "metrics.jsonl").read_bytes().splitlines()))

    def discard(self, *, keep: str | None = None) -> None:
        """Remove the directory, but for the file `keep`."""
        if keep is None or not self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != keep:
                path.unlink(missing_ok=True)

    def without_path(self, text: str) -> str:
        """`text` as clients may read it: they are not told where the server keeps things."""
        return text.replace(f"{self.path}/", "").replace(str(self.path), "the run directory")

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        draft = self.path / f".{name}"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.path / name)


def _event(line: bytes) -> dict[str, Any] | None:
    """None for a line that a fall cut, and the next process wrote on."""
    with contextlib.suppress(ValueError):
        return dict(_loads(line))
    return None


def _loads(raw: bytes) -> Any:
    """Numbers that are not finite, which JSON over HTTP has none of, are null."""
    return json.loads(raw, parse_constant=lambda name: None)
