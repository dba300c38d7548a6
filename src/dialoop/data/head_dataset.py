"""The rows of a head's training in memory: read, cleaned and split as dialogues are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from dialoop.config.heads import HeadDataSettings
from dialoop.data.dataset import Dataset, load_rows
from dialoop.data.head_rows import Shape
from dialoop.data.sources import OnReject
from dialoop.types import Conversation

T = TypeVar("T")


def load_head_dataset(settings: HeadDataSettings, shape: Shape[T], *, scratch: Path) -> Dataset[T]:
    """Raises as `load_dataset`."""

    def read(source: str, on_reject: OnReject) -> Iterator[Conversation]:
        return islice(shape.read(source, settings.columns, on_reject), settings.limit)

    mend = "name the columns in data.columns"
    return load_rows(settings, read, scratch, mend=mend).spread(shape.back)
