"""Files that clients upload to train on: every row is read once, before anything is made of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from dialoop.chat.wire import conversation_from_openai
from dialoop.config import DataFormat
from dialoop.data.head_rows import labelled_row, pair_row, tagged_row
from dialoop.data.json_rows import parse
from dialoop.data.shapes import EXAMPLES, items_of, shape_of
from dialoop.data.text_io import MAX_ROW_BYTES
from dialoop.errors import DataError, echo
from dialoop.types import Conversation

BOM = b"\xef\xbb\xbf"
_PAUSE_ROWS = 64
Carry = Callable[[Mapping[str, Any], Mapping[str, str]], Conversation]
FOR_HEADS: Mapping[str, tuple[frozenset[str], str, Carry]] = {
    "labelled": (frozenset({"text", "label"}), '{"text": "...", "label": "..."}', labelled_row),
    "tagged": (frozenset({"tokens", "tags"}), '{"tokens": ["..."], "tags": ["O"]}', tagged_row),
    "fits": (
        frozenset({"history", "answer", "fits"}),
        '{"history": "...", "answer": "...", "fits": true}',
        pair_row,
    ),
}
"""The forms of rows that heads learn from: their keys, an example, and what reads one."""


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of each line that is not blank. Raises DataError with the first line that is none.

    UTF-8, with or without a mark. Memory holds one line, of at most MAX_ROW_BYTES.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_ROW_BYTES + 1), b""), 1):
            if number % _PAUSE_ROWS == 0:
                time.sleep(0)  # lets go of the interpreter: another thread may be answering
            text = _text(line.removeprefix(BOM) if number == 1 else line, number)
            if text:
                yield number, _object(text, number)


def _text(line: bytes, number: int) -> str:
    if len(line) > MAX_ROW_BYTES:
        raise DataError(f"line {number}: longer than {MAX_ROW_BYTES} bytes: split it")
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"line {number}: not UTF-8 (byte {error.start}): save the file as UTF-8") from None


def _object(text: str, number: int) -> dict[str, Any]:
    try:
        value = parse(text)
    except ValueError as error:
        raise DataError(f"line {number}: {error}: write one JSON object a line") from None
    if not isinstance(value, dict):
        raise DataError(f"line {number}: {echo(value)}, not a JSON object: write one JSON object a line")
    return value


def check_training_file(path: Path) -> int:
    """The number of rows. Raises DataError with the first line that cannot be learnt from.

    All rows have the form of the first: OpenAI's for conversations or preferences, another of ours, or one
    that a head learns from.
    """
    rows, form = 0, None
    for number, row in json_objects(path):
        shape = _form(row)
        form = form or shape
        if shape is None or shape != form or shape == "text":
            raise DataError(f"line {number}: {_unlike(shape, form)}: expected {_example(form)}")
        try:
            _check(row, shape)
        except DataError as error:
            raise DataError(f"line {number}: {error}") from None
        rows += 1
    if not rows:
        raise DataError(f"the file has no rows: write one a line, such as {EXAMPLES['openai']}")
    return rows


def _form(row: dict[str, Any]) -> str | None:
    """What the keys of a row tell."""
    for form, (keys, _, _) in FOR_HEADS.items():
        if keys <= row.keys():
            return form
    return shape_of(row)


def _example(form: str | None) -> str:
    if form is not None and form in FOR_HEADS:
        return FOR_HEADS[form][1]
    return next((text for name, text in EXAMPLES.items() if name == form != "text"), EXAMPLES["openai"])


def _unlike(shape: str | None, form: str | None) -> str:
    if shape is None or shape == "text":
        return "no conversation and no preference"
    return f"looks like {shape}, the rows before it like {form}"


def _check(row: dict[str, Any], shape: str) -> None:
    if shape in FOR_HEADS:
        FOR_HEADS[shape][2](row, {})
        return
    strict = shape == "openai" and "messages" in row
    for item in [conversation_from_openai(row)] if strict else items_of(row, cast(DataFormat, shape), {}):
        if isinstance(item, Conversation) and item.answer_index is None:
            raise DataError("no assistant message to learn from: add one")
