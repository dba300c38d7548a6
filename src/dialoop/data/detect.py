"""What a file holds, told from its first rows and said in one line; every guess can be overridden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dialoop.config import DataFormat
from dialoop.data import columns as column_names
from dialoop.data.containers import Container, container_of, rows
from dialoop.data.plain_text import labels_of
from dialoop.data.shapes import EXAMPLES, missing, shape_of, turns_key
from dialoop.data.turns import unread_turn_keys
from dialoop.errors import DataError, echo

HEAD_ROWS = 50
_REGISTRY_KEYS = frozenset(
    {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"}
)
_TABLES = frozenset({"csv", "tsv", "xlsx", "parquet"})


@dataclass(frozen=True, slots=True)
class Detected:
    """What a file is taken for.

    container: jsonl, json, csv, tsv, xlsx, parquet or txt.  encoding: a Python codec, "" where the container
    has its own.  columns: our field -> column; for `qa` our role -> the labels, joined by `|`.
    why: the evidence, without content.  by_blocks: documents of plain text are blocks, not lines.
    """

    format: DataFormat
    container: str
    encoding: str
    compression: str | None
    columns: Mapping[str, str]
    why: str
    delimiter: str = ","
    sheet: str | None = None
    by_blocks: bool = False

    def __str__(self) -> str:
        parts = [self.format, self.container, self.encoding, self.compression]
        mapped = ", ".join(f"{ours}={theirs}" for ours, theirs in self.columns.items())
        return f"{', '.join(part for part in parts if part)}{f' ({mapped})' if mapped else ''}: {self.why}"


def detect(
    path: Path,
    *,
    format: DataFormat | None = None,
    columns: Mapping[str, str] = {},
    encoding: str | None = None,
) -> Detected:
    """What `path` is taken for, with what the caller says given precedence.

    Raises DataError for a file that cannot be read as any format, ConfigError for columns or an encoding
    that do not exist.
    """
    container, sample = container_of(path, columns.get("sheet"), encoding)
    if format == "qa" or (container.kind == "txt" and format in (None, "text")):
        return _plain(path, container, sample, format, columns)
    if format == "text" and container.kind not in ("jsonl", "json", "parquet", "xlsx"):
        return _plain(path, container, sample, format, columns)
    if container.kind == "txt":
        raise DataError(f"{path}: line 1: neither JSON nor a table: {format} is {EXAMPLES[format or 'text']}")
    line, head = _head(path, container)
    where = f"{path}: line {line}"
    _refuse_registry(where, head)
    names = list(dict.fromkeys(key for row in head if isinstance(row, dict) for key in row))
    mapped = column_names.checked(columns, names, str(path))
    if format is not None:
        why = "format given"
    else:
        format, why = ("table", "columns given") if mapped else _voted(where, head, container.kind)
    if not mapped and format in ("pairs", "table"):
        mapped = column_names.guess(names)
    _refuse_columns(where, format, mapped, names)
    return _detected(container, format, mapped, why + _unread(head) + container.note)


def _refuse_columns(where: str, format: DataFormat, mapped: Mapping[str, str], names: list[str]) -> None:
    """Raises DataError where a table does not say who speaks, or in which conversation."""
    if "role" in mapped and not mapped.keys() & {"conversation", "order"}:
        raise DataError(
            f"{where}: a row is one message, but no column says to which conversation it belongs: "
            "name it, such as conversation=session_id"
        )
    if format == "table" and not mapped:
        there = ", ".join(map(echo, names[:12]))
        raise DataError(
            f"{where}: no column says who speaks: name them, such as user=question assistant=answer; "
            f"there are {there}"
        )


def _detected(
    container: Container, format: DataFormat, columns: Mapping[str, str], why: str, by_blocks: bool = False
) -> Detected:
    return Detected(format, container.kind, container.encoding, container.compression, columns, why,
                    container.delimiter, container.sheet, by_blocks)  # fmt: skip


def _plain(
    path: Path, container: Container, sample: str, format: DataFormat | None, columns: Mapping[str, str]
) -> Detected:
    container = Container("txt", container.encoding, container.compression)
    labels = dict(columns) if columns else labels_of(sample)
    if format == "text" or (format is None and not labels):
        blocks = any(not line.strip() for line in sample.strip().splitlines())
        return _detected(container, "text", {}, f"a document is {'a block' if blocks else 'a line'}", blocks)
    if not labels.keys() >= {"user", "assistant"}:
        raise DataError(
            f"{path}: line 1: no labels of two speakers: expected {EXAMPLES['qa']}, "
            "or name them, such as user=Visitor assistant=Clerk"
        )
    return _detected(container, "qa", labels, "format given" if format else "lines begin with labels")


def _head(path: Path, container: Container) -> tuple[int, list[Any]]:
    """The line of the first row, and the first rows. Raises DataError with the first fault instead."""
    faults: list[tuple[int, str]] = []
    found = rows(path, container, lambda line, reason: faults.append((line, reason)))
    head = list(islice(found, HEAD_ROWS))
    if not head:
        line, reason = faults[0] if faults else (1, "the file holds no rows")
        wanted = EXAMPLES["table" if container.kind in _TABLES else "openai"]
        raise DataError(f"{path}: line {line}: {reason}: expected {wanted}")
    return head[0][0], [row for _, row in head]


def _refuse_registry(where: str, head: list[Any]) -> None:
    first = head[0]
    values = first.values() if isinstance(first, dict) else ()
    entries = [value for value in values if isinstance(value, dict)]
    if entries and len(head) == 1 and all(not _REGISTRY_KEYS.isdisjoint(entry) for entry in entries):
        raise DataError(
            f"{where}: a registry of {len(entries)} data sets (LLaMA-Factory's dataset_info.json), "
            "not data: "
            f"give the files that it names, with rows such as {EXAMPLES['openai']}"
        )


def _unread(head: list[Any]) -> str:
    """What messages carry and dialoop does not read."""
    keyed = [(row, turns_key(row)) for row in head if isinstance(row, dict)]
    unread = sorted({name for row, key in keyed if key for name in unread_turn_keys(row[key])})
    return f"; keys of turns that are not read: {', '.join(map(echo, unread[:8]))}" if unread else ""


def _voted(where: str, head: list[Any], kind: str) -> tuple[DataFormat, str]:
    """The format of most of the first rows."""
    votes = Counter(shape for row in head if (shape := shape_of(row)))
    if not votes:
        row = head[0] if isinstance(head[0], dict) else {}
        reason = missing(row, ("messages",), "openai")
        raise DataError(f"{where}: {reason}; or name columns, such as user=question assistant=answer")
    format, count = votes.most_common(1)[0]
    if format == "pairs" and kind in _TABLES:
        format = "table"
    return format, f"{count} of the first {len(head)} rows have this shape"
