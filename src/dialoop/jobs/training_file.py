"""The rows of a training file, and all that keeps a job from learning them, by line.

What is no JSON or no conversation was refused when the file was uploaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from dialoop.data.head_rows import LABELLED, PAIRED, TAGGED, Shape
from dialoop.data.rejects import Rejected
from dialoop.data.shapes import items_of, shape_of
from dialoop.data.training_file import json_objects
from dialoop.errors import DataError
from dialoop.types import Conversation, Preference

Item = TypeVar("Item", Conversation, Preference)
FEWEST = 10
"""Rows to train on, as at OpenAI."""
SHOWN = 5
"""Problems that an error names."""


HEADS: Mapping[str, Shape[Any]] = {"classify": LABELLED, "pair": PAIRED, "tag": TAGGED}
"""Rows by the kind of recipe that learns them."""


def read_training_file(
    path: Path, name: str, method: str = "supervised", kind: str = "tune", *, fewest: int = 1
) -> tuple[Any, ...]:
    """The rows, each with its line in its metadata: preferences for the method `dpo`, else conversations;
    for a head what its kind learns.

    name: what clients call the file.

    Raises DataError that names the first lines at fault and counts all, or where there are too few rows.
    """
    problems: list[str] = []
    if kind != "tune":
        rows = _read_for_head(path, HEADS[kind], problems)
    else:
        rows = _read(path, name, _preferences if method == "dpo" else _conversations, problems)
    if problems:
        raise DataError(
            f"{name}: {len(problems)} rows cannot be used: {'; '.join(_shown(problems))}: mend or remove "
            f"them, upload the file again and create a new job"
        )
    if len(rows) < fewest:
        raise DataError(f"{name} has {len(rows)} rows, expected {fewest} or more: add rows")
    return tuple(rows)


def _read(
    path: Path, name: str, items: Callable[[dict[str, Any]], Iterator[Item]], problems: list[str]
) -> list[Item]:
    rows: list[Item] = []
    for line, value in json_objects(path):
        try:
            rows += [_placed(found, name, line) for found in items(value)]
        except DataError as error:
            problems.append(f"line {line}: {error}")
    return rows


def _read_for_head(path: Path, shape: Shape[Any], problems: list[str]) -> list[Any]:
    """A file whose first row says of an answer whether it fits does so in all."""
    first: dict[str, Any] = next((value for _, value in json_objects(path)), {})
    columns = {"fits": "fits"} if "fits" in first else {}

    def reject(row: Rejected) -> None:
        problems.append(f"line {row.line}: {row.reason}")

    carriers = list(shape.read(f"file:{path}", columns, reject))
    return [row for carrier in carriers for row in shape.back(carrier)]


def _conversations(row: dict[str, Any]) -> Iterator[Conversation]:
    shape = shape_of(row)
    if shape is None:
        raise DataError(
            'expected an object with "messages", as in {"messages": [{"role": "user", ...}, ...]}'
        )
    for item in items_of(row, shape, {}):
        if not isinstance(item, Conversation):
            raise DataError(
                f"of the form {shape}, which supervised fine-tuning does not learn: give conversations, or "
                f"take the method dpo for preferences"
            )
        if not any(m.role == "assistant" and m.weight != 0 for m in item.messages):
            raise DataError("no assistant message to learn: add one, or set the weight of one to 1")
        yield item


def _preferences(row: dict[str, Any]) -> Iterator[Preference]:
    shape = shape_of(row)
    if shape != "preference":
        raise DataError(
            'no preference: expected {"input": {"messages": [...]}, "preferred_output": [...], '
            '"non_preferred_output": [...]}'
        )
    for item in items_of(row, shape, {}):
        assert isinstance(item, Preference)
        if any(answer.role != "assistant" for answer in (item.chosen, item.rejected)):
            raise DataError("an output is no assistant message: give one assistant message in each")
        if item.chosen == item.rejected:
            raise DataError("both outputs are the same: there is nothing to prefer")
        yield item


def _placed(item: Item, name: str, line: int) -> Item:
    metadata = {**item.metadata, "source": name, "line": line}
    if isinstance(item, Preference):
        return replace(item, history=replace(item.history, metadata=metadata))
    return replace(item, metadata=metadata)


def _shown(problems: list[str]) -> list[str]:
    more = len(problems) - SHOWN
    return problems[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
