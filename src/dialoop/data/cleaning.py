"""Cleaning files: read, clean, and write the result, the rejects, the changes and the report, or nothing."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from dialoop.config import CleanSettings, DataFormat
from dialoop.data.clean import Progress, clean
from dialoop.data.contrast import supervised
from dialoop.data.rejects import Rejected, RejectsFile
from dialoop.data.sources import Detected, detect, dialogues, read_detected
from dialoop.data.tally import REJECTING_STEPS, Change, CleaningReport, Tally
from dialoop.data.vault import Vault
from dialoop.data.writer import write_openai
from dialoop.errors import DataError
from dialoop.types import Conversation

CLEAN, REJECTS, CHANGES, VAULT = "clean.jsonl", "rejects.jsonl", "changes.jsonl", "pii.vault"
REPORT_JSON, REPORT_TEXT = "report.json", "report.md"


@dataclass(frozen=True, slots=True)
class Input:
    """Files to read, and what to take them for where that is not to be detected."""

    files: tuple[Path, ...]
    format: DataFormat | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None

    def detected(self) -> tuple[tuple[Path, Detected], ...]:
        """What each file is taken for. Raises DataError for a file that cannot be read."""
        given = {"format": self.format, "columns": self.columns, "encoding": self.encoding}
        return tuple((file, detect(file, **given)) for file in self.files)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a run over files did. turns: (turns, rows with so many); rejects: (reason, rows)."""

    detected: tuple[tuple[Path, Detected], ...]
    report: CleaningReport
    turns: tuple[tuple[int, int], ...]
    rejects: tuple[tuple[str, int], ...]


class _Reader:
    """The dialogues of all files; knows the file and row that it is at, for the rejects file."""

    def __init__(self, source: Input, reject: RejectsFile | None) -> None:
        self.detected = source.detected()
        self.turns: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self.tally = Tally(self._changed)
        self._reject = reject
        self._file, self._row = "", 0
        self._changes: _Lines | None = None

    def write_changes(self, lines: _Lines) -> None:
        """From now on changes go to `lines`."""
        self._changes = lines

    def rows(self) -> Iterator[Conversation]:
        """Every conversation of every file, in order."""
        for path, detected in self.detected:
            self._file, self._row = str(path), 0
            items = read_detected(path, detected, on_reject=self._unreadable)
            for conversation in dialogues(items, on_reject=self._unreadable, file=str(path)):
                self._row += 1
                self.turns[len(supervised(conversation).messages)] += 1
                yield conversation

    def _unreadable(self, rejected: Rejected) -> None:
        self._row += 1
        self.tally.unreadable += 1
        self._put(rejected)

    def _changed(self, change: Change) -> None:
        if self._changes is not None:
            self._changes.put(change.to_json())
        if change.action == "removed" and change.step in REJECTING_STEPS:
            self._put(Rejected(self._file, self._row, f"{change.step}: {change.what}"))

    def _put(self, rejected: Rejected) -> None:
        self.reasons[rejected.reason] += 1
        if self._reject is not None:
            self._reject(rejected)


class _Lines:
    """A text file that grows by lines."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def put(self, line: str) -> None:
        self._file.write(line + "\n")

    def close(self) -> None:
        self._file.close()


def inspect_files(source: Input, settings: CleanSettings, *, on_progress: Progress | None = None) -> Cleaned:
    """What cleaning would do to the files; nothing is left behind on disk."""
    reader = _Reader(source, None)
    with tempfile.TemporaryDirectory(prefix="dialoop-") as scratch:
        for _ in clean(
            reader.rows(), settings, scratch=Path(scratch), tally=reader.tally, on_progress=on_progress
        ):
            pass
    return _cleaned(reader)


def clean_files(
    source: Input,
    settings: CleanSettings,
    out: Path,
    *,
    pii_key: Path | None = None,
    on_progress: Progress | None = None,
) -> Cleaned:
    """Writes clean.jsonl, rejects.jsonl, changes.jsonl, report.json and report.md under `out`.

    All of them appear together at the end. With `pii_key` the encrypted mapping goes to pii.vault.
    """
    with published(out) as part, ExitStack() as stack:
        reader = _Reader(source, stack.enter_context(RejectsFile(part / REJECTS)))
        lines = _Lines(part / CHANGES)
        stack.callback(lines.close)
        reader.write_changes(lines)
        vault = stack.enter_context(_vault(part, pii_key))
        rows = clean(
            reader.rows(),
            settings,
            scratch=part / "scratch",
            tally=reader.tally,
            vault=vault,
            on_progress=on_progress,
        )
        write_openai(part / CLEAN, rows)
        cleaned = _cleaned(reader)
        _write_report(part, cleaned)
    return cleaned


def _vault(part: Path, key: Path | None) -> AbstractContextManager[Vault | None]:
    return nullcontext() if key is None else Vault(part / VAULT, key)


def _write_report(part: Path, cleaned: Cleaned) -> None:
    report = cleaned.report
    values = {
        **report.to_dict(),
        "files": {str(path): str(detected) for path, detected in cleaned.detected},
        "rejects": dict(cleaned.rejects),
        "turns": {str(turns): rows for turns, rows in cleaned.turns},
    }
    (part / REPORT_JSON).write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (part / REPORT_TEXT).write_text(f"{report.to_text('en')}\n{report.to_text('zh')}", encoding="utf-8")


def _cleaned(reader: _Reader) -> Cleaned:
    turns = tuple(sorted(reader.turns.items()))
    return Cleaned(reader.detected, reader.tally.report(), turns, tuple(reader.reasons.most_common()))


_OWN = (CLEAN, REJECTS, CHANGES, VAULT, REPORT_JSON, REPORT_TEXT)


@contextmanager
def published(out: Path, own: Sequence[str] = _OWN) -> Iterator[Path]:
    """A hidden folder whose files move to `out` when the block ends well, and vanish when it does not.

    own: names of an earlier run's files, which go when this run has none of that name.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: a file, and a folder was wanted: give another --out")
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".part-") as folder:
            part = Path(folder)
            yield part
            files = [file for file in part.iterdir() if file.is_file()]
            for name in set(own) - {file.name for file in files}:
                (out / name).unlink(missing_ok=True)
            for file in files:
                os.replace(file, out / file.name)
    except BaseException:
        if made and not any(out.iterdir()):
            out.rmdir()
        raise
