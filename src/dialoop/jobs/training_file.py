"""The conversations of a training file, and all that keeps a job from learning them, by line.

What is no JSON or no conversation was refused when the file was uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dialoop.data.shapes import items_of, shape_of
from dialoop.data.training_file import json_objects
from dialoop.errors import DataError
from dialoop.types import Conversation

FEWEST = 10
"""Rows to train on, as at OpenAI."""
SHOWN = 5
"""Problems that an error names."""


def read_training_file(path: Path, name: str, *, fewest: int = 1) -> tuple[Conversation, ...]:
    """The rows, each with its line in its metadata. name: what clients call the file.

    Raises DataError that names the first lines at fault and counts all, or where there are too few rows.
    """
    rows: list[Conversation] = []
    problems: list[str] = []
    for line, value in json_objects(path):
        try:
            for found in _conversations(value):
                rows.append(replace(found, metadata={**found.metadata, "source": name, "line": line}))
        except DataError as error:
            problems.append(f"line {line}: {error}")
    if problems:
        raise DataError(
            f"{name}: {len(problems)} rows cannot be used: {'; '.join(_shown(problems))}: mend or remove "
            f"them, upload the file again and create a new job"
        )
    if len(rows) < fewest:
        raise DataError(f"{name} has {len(rows)} rows, expected {fewest} or more: add rows")
    return tuple(rows)


def _conversations(row: dict[str, Any]) -> Iterator[Conversation]:
    shape = shape_of(row)
    if shape is None:
        raise DataError(
            'expected an object with "messages", as in {"messages": [{"role": "user", ...}, ...]}'
        )
    for item in items_of(row, shape, {}):
        if not isinstance(item, Conversation):
            raise DataError(
                f"of the form {shape}, which supervised fine-tuning does not learn: give conversations"
            )
        if not any(m.role == "assistant" and m.weight != 0 for m in item.messages):
            raise DataError("no assistant message to learn: add one, or set the weight of one to 1")
        yield item


def _shown(problems: list[str]) -> list[str]:
    more = len(problems) - SHOWN
    return problems[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
