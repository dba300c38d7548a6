"""The outside of a file: compression, encoding, and how its rows lie in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialoop.data.columns import guess
from dialoop.data.json_rows import DECODER, Elements, line_rows
from dialoop.data.tables import csv_rows, delimiter_of, parquet_rows, sheets, xlsx_rows
from dialoop.data.text_io import (
    Reject,
    chunks,
    compression_of,
    encoding_of,
    given_encoding,
    lines,
    probe_of,
    sample_of,
)
from dialoop.errors import DataError, echo

_LINE_NAMES = frozenset({".jsonl", ".ndjson", ".jl"})
_TABLE_NAMES = {".csv": ("csv", ","), ".tsv": ("tsv", "\t"), ".tab": ("tsv", "\t")}
_TEXT_NAMES = frozenset({".txt", ".md", ".text", ".log"})
_PACKED_NAMES = frozenset({".gz", ".bz2", ".xz"})
_MARKS = ((b"PAR1", "parquet"), (b"PK\x03\x04", "xlsx"), (b"\xd0\xcf\x11\xe0", "xlsx"))

_TURNS = re.compile(r'\[\s*\{\s*"(?:role|from)"')
"""A list of turns, which is one row; other lists hold rows."""


@dataclass(frozen=True, slots=True)
class Container:
    """kind: jsonl, json, csv, tsv, xlsx, parquet or txt.  encoding: "" where the kind has its own."""

    kind: str
    encoding: str
    compression: str | None
    delimiter: str = ","
    sheet: str | None = None
    note: str = ""


def container_of(path: Path, sheet: str | None = None, encoding: str | None = None) -> tuple[Container, str]:
    """The container and a sample of its text; encoding: given, not guessed.

    Raises DataError for a file that is empty, binary or broken, ConfigError for an unknown encoding.
    """
    compression = compression_of(path)
    sample = sample_of(path, compression)
    packed = next((kind for mark, kind in _MARKS if sample.startswith(mark)), None)
    if packed is not None:
        return _packed_table(path, packed, compression, sheet), ""
    found = encoding_of(probe_of(path, compression, sample))
    encoding = found if encoding is None else given_encoding(encoding, found)
    text = sample.decode(encoding, "ignore").lstrip("\ufeff")
    if not text.replace("\0", "").strip():
        raise DataError(f"{path}: line 1: the file is empty: give a file with at least one dialogue")
    if _is_binary(text):
        raise DataError(f"{path}: line 1: binary: give JSONL, JSON, CSV, TSV, XLSX, Parquet or text")
    kind, delimiter = _text_kind(text, _suffix(path))
    return Container(kind, encoding, compression, delimiter), text


def _suffix(path: Path) -> str:
    names = [name.lower() for name in path.suffixes if name.lower() not in _PACKED_NAMES]
    return names[-1] if names else ""


def _packed_table(path: Path, kind: str, compression: str | None, sheet: str | None) -> Container:
    if compression:
        raise DataError(f"{path}: {kind} inside {compression}: unpack it first, it is compressed by itself")
    if kind == "parquet":
        return Container(kind, "", None)
    first, *others = sheets(path) or [""]
    left = [name for name in (first, *others) if name != (sheet or first)]
    note = f"; sheets not read: {', '.join(map(echo, left))} (choose with sheet=NAME)" if left else ""
    return Container(kind, "", None, sheet=sheet or first, note=note)


def _is_binary(text: str) -> bool:
    controls = sum(text.count(chr(code)) for code in range(32) if chr(code) not in "\t\n\r\f\x1b")
    return controls > 3 and controls > len(text) / 10


def _text_kind(text: str, suffix: str) -> tuple[str, str]:
    if suffix in _TABLE_NAMES:
        kind, usual = _TABLE_NAMES[suffix]
        return kind, delimiter_of(text) or usual
    head = text.lstrip()
    if json_kind := _json_kind(head, suffix):
        return json_kind, ","
    delimiter = None if suffix in _TEXT_NAMES else delimiter_of(head)
    if delimiter and guess(_cells(head, delimiter)):
        return ("tsv" if delimiter == "\t" else "csv"), delimiter
    return "txt", ","


def _cells(head: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"') for cell in head.split("\n", 1)[0].split(delimiter)]


def _json_kind(head: str, suffix: str) -> str | None:
    """`jsonl` where the first line is a whole value and a second follows, `json` where a value goes on."""
    filled = [line for line in head.split("\n", 50)[:50] if line.strip()]
    whole = [_is_whole(line) for line in filled]
    if head[0] in "[{" and whole[0] and (len(filled) == 1 or filled[1].lstrip()[0] in "[{"):
        return "json" if head[0] == "[" and len(filled) == 1 and not _TURNS.match(head) else "jsonl"
    if suffix in _LINE_NAMES and not (head[0] == "[" and not any(whole)):
        return "jsonl"
    if sum(whole) * 2 > len(filled):
        return "jsonl"
    if suffix == ".json" or suffix in _LINE_NAMES:
        return "json"
    return "json" if re.match(r'\[\s*[{\["\]]|\{\s*["}]', head) and suffix not in _TEXT_NAMES else None


def _is_whole(line: str) -> bool:
    try:
        return isinstance(DECODER.decode(line), dict | list)
    except (ValueError, RecursionError):
        return False


def rows(path: Path, container: Container, reject: Reject) -> Iterator[tuple[int, Any]]:
    """(line or row, value) of every row; what is no row at all goes to `reject`."""
    match container.kind:
        case "parquet":
            return parquet_rows(path)
        case "xlsx":
            return xlsx_rows(path, container.sheet or "")
        case "json":
            return iter(Elements(chunks(path, container.compression, container.encoding), reject))
        case "csv" | "tsv":
            read = lines(path, container.compression, container.encoding, reject, keep_damaged=True)
            return csv_rows(read, container.delimiter, reject)
    return line_rows(lines(path, container.compression, container.encoding, reject), reject)
