"""Rows of CSV, TSV, XLSX and Parquet, and conversations from tables with one message a row."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from dialoop.data.columns import guess
from dialoop.data.text_io import MAX_ROW_BYTES, Reject, is_damaged
from dialoop.errors import DataError, echo, nearest

Rows = Iterator[tuple[int, Any]]
DELIMITERS = (",", "\t", ";", "|")


def delimiter_of(sample: str) -> str | None:
    """What separates the columns of the header and of the rows below it, or None."""
    counts: dict[str, int] = {}
    for delimiter in DELIMITERS:
        rows = [row or [] for row in islice(_parsed(sample.split("\n"), delimiter), 20)]
        width = len(rows[0]) if rows else 0
        same = sum(len(row) == width for row in rows)
        if width > 1 and same * 2 > len(rows):
            counts[delimiter] = width * (4 if guess(rows[0]) else 1)
    return max(counts, key=lambda delimiter: counts[delimiter]) if counts else None


def _parsed(lines: Iterable[str], delimiter: str) -> Iterator[list[str] | None]:
    """Records; None for one that is no CSV."""
    csv.field_size_limit(MAX_ROW_BYTES)
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            yield next(reader)
        except csv.Error:
            yield None
        except StopIteration:
            return


def csv_rows(lines: Iterator[tuple[int, str]], delimiter: str, reject: Reject) -> Rows:
    """(row, {column: cell}) below the header, which is row 1; rows without any text are none."""
    parsed = enumerate(_parsed((text + "\n" for _, text in lines), delimiter), 1)
    header: list[str] | None = None
    for number, cells in parsed:
        if cells is None:
            reject(number, "not CSV: a quote is not closed, or the cell is too long")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
        elif reason := _row_fault(cells, header):
            reject(number, reason)
        else:
            yield number, dict(zip(header, cells, strict=False))


def _row_fault(cells: list[str], header: list[str]) -> str | None:
    if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
        return f"{len(cells)} cells under {len(header)} columns: quote a cell that holds the separator"
    if len(cells) < len(header) and len(cells) == 1:
        return f"1 cell under {len(header)} columns"
    return "bytes that are not text in the file's encoding" if is_damaged("".join(cells)) else None


def parquet_rows(path: Path) -> Rows:
    """(row, {column: value}); the first data row is 2, as in the other tables."""
    import polars as pl

    try:
        number = 1
        for frame in pl.scan_parquet(path).collect_batches(chunk_size=4096, maintain_order=True):
            for row in frame.iter_rows(named=True):
                number += 1
                yield number, _plain(row)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: damaged Parquet ({type(error).__name__}): write the file again") from error


def sheets(path: Path) -> list[str]:
    """Names of the sheets of a workbook. Raises DataError."""
    return list(_workbook(path).sheet_names)


def _workbook(path: Path) -> Any:
    import fastexcel

    try:
        return fastexcel.read_excel(path)
    except (fastexcel.FastExcelError, OSError) as error:
        raise DataError(f"{path}: no workbook that can be opened: save it as .xlsx or CSV") from error


def xlsx_rows(path: Path, sheet: str) -> Rows:
    """(row of the sheet, {column: cell text}) below the header."""
    import fastexcel

    book = _workbook(path)
    if sheet not in book.sheet_names:
        raise DataError(f"{path}: there is no sheet {echo(sheet)}{nearest(sheet, book.sheet_names)}")
    try:
        frame = book.load_sheet(sheet, header_row=0, dtypes="string").to_polars()
    except fastexcel.FastExcelError as error:
        raise DataError(f"{path}: sheet {echo(sheet)} cannot be read: save it as CSV in UTF-8") from error
    for number, row in enumerate(frame.iter_rows(named=True), 2):
        if any(cell for cell in row.values()):
            yield number, {column: cell for column, cell in row.items() if cell is not None}


def _plain(value: Any) -> Any:
    """Values as JSON has them: times and bytes as text, NaN as nothing."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime) else str(value)
