"""Reading: a file or a shipped sample to conversations, preferences and documents, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path

from dialoop.config import DataFormat, expand
from dialoop.data.containers import Container, rows
from dialoop.data.contrast import Contrast, supervised
from dialoop.data.detect import Detected, detect
from dialoop.data.message_table import grouped
from dialoop.data.plain_text import documents, transcripts
from dialoop.data.rejects import Rejected, RejectsFile
from dialoop.data.shapes import Item, items_of
from dialoop.data.text_io import Reject, lines
from dialoop.data.writer import write_openai
from dialoop.errors import DataError, echo, nearest
from dialoop.types import Conversation, Document, Preference

__all__ = [
    "Detected", "Item", "Rejected", "RejectsFile", "contrasts", "conversations", "detect", "dialogues",
    "locate", "read", "read_detected", "read_source", "write_openai",
]  # fmt: skip

OnReject = Callable[[Rejected], None]
SAMPLES: Mapping[str, DataFormat] = {
    "en": "openai", "zh": "openai", "preference": "preference", "moderation": "table",
}  # fmt: skip
"""The format of each sample that is shipped."""


def read(
    path: Path,
    *,
    format: DataFormat | None = None,
    columns: Mapping[str, str] = {},
    encoding: str | None = None,
    on_reject: OnReject,
) -> Iterator[Item]:
    """Every row of `path` as an item, or as a call of `on_reject`. Raises DataError for a broken file."""
    detected = detect(path, format=format, columns=columns, encoding=encoding)
    return read_detected(path, detected, on_reject=on_reject)


def read_detected(path: Path, detected: Detected, *, on_reject: OnReject) -> Iterator[Item]:
    """As `read`, with what `detect` said about the file."""

    def reject(line: int, reason: str) -> None:
        on_reject(Rejected(str(path), line, reason))

    if detected.container == "txt":
        return _plain(path, detected, reject)
    found = rows(path, _container(detected), reject)
    if "role" in detected.columns:
        return grouped(found, detected.columns, reject)
    return _items(found, detected, reject)


def _container(of: Detected) -> Container:
    return Container(of.container, of.encoding, of.compression, of.delimiter, of.sheet)


def _plain(path: Path, detected: Detected, reject: Reject) -> Iterator[Item]:
    text = lines(path, detected.compression, detected.encoding, reject)
    if detected.format == "qa":
        return transcripts(text, detected.columns, reject)
    return documents(text, detected.by_blocks, reject)


def _items(found: Iterable[tuple[int, object]], detected: Detected, reject: Reject) -> Iterator[Item]:
    for line, row in found:
        try:
            items = items_of(row, detected.format, detected.columns)
        except DataError as error:
            reject(line, str(error))
            continue
        yield from items


def dialogues(items: Iterable[Item], on_reject: OnReject, file: str = "") -> Iterator[Conversation]:
    """The conversations among `items`, and the preferences as contrasts; a document is rejected.

    The line of such a reject is the item's number, from 1.
    """
    for number, item in enumerate(items, 1):
        match item:
            case Conversation():
                yield item
            case Preference():
                yield Contrast.of(item)
            case Document():
                on_reject(Rejected(file, number, "plain text without turns: it can only be pre-trained on"))


def conversations(items: Iterable[Item], on_reject: OnReject, file: str = "") -> Iterator[Conversation]:
    """As `dialogues`, for those who imitate: a preference gives its chosen conversation."""
    return map(supervised, dialogues(items, on_reject, file))


def contrasts(items: Iterable[Item], on_reject: OnReject, file: str = "") -> Iterator[Contrast]:
    """The preferences among `items` alone; whatever else there is, or prefers nothing, is rejected."""
    for number, item in enumerate(items, 1):
        if not isinstance(item, Preference):
            on_reject(Rejected(file, number, "no preference: it has no chosen and no rejected answer"))
        elif item.chosen == item.rejected:
            on_reject(Rejected(file, number, "the chosen and the rejected answer are the same"))
        else:
            yield Contrast.of(item)


def locate(source: str) -> Path:
    """The file behind `sample:en` and its like, `file:PATH` or a path. Raises ConfigError or DataError."""
    kind, _, rest = source.partition(":")
    if kind == "sample":
        if rest not in SAMPLES:
            raise DataError(f"source {echo(source)}: no such sample{nearest(rest, SAMPLES)}")
        return Path(str(resources.files("dialoop.assets") / "samples" / f"{rest}.jsonl"))
    return expand(rest if kind == "file" else source)


def read_source(
    source: str,
    *,
    format: DataFormat | None = None,
    columns: Mapping[str, str] = {},
    encoding: str | None = None,
    on_reject: OnReject,
) -> Iterator[Item]:
    """As `read`, for a source as recipes name it."""
    path = locate(source)
    if source.startswith("sample:"):
        format, columns, encoding = SAMPLES[source.removeprefix("sample:")], {}, "utf-8"
    return read(path, format=format, columns=columns, encoding=encoding, on_reject=on_reject)
