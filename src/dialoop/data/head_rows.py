"""Rows for heads: labelled texts, tagged words, and answers that fit or do not.

Each is carried by a conversation through the cleaning, the splitting and the leak check of dialogues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from dialoop.chat.wire import conversation_from_openai
from dialoop.data.conll import conll_rows
from dialoop.data.containers import container_of, rows
from dialoop.data.rejects import Rejected
from dialoop.data.sources import OnReject, conversations, locate, read_source
from dialoop.data.spans import scheme_of, to_iob2
from dialoop.data.text_io import Reject, lines
from dialoop.errors import DataError, DialoopError
from dialoop.types import Conversation, Labelled, Message, Pair, Tagged

T = TypeVar("T")
Columns = Mapping[str, str]

TEXT_NAMES = ("text", "sentence", "utterance", "content", "query", "question", "文本", "句子", "问题", "内容")
LABEL_NAMES = ("label", "intent", "class", "category", "labels", "标签", "类别", "意图", "分类")
TOKEN_NAMES, TAG_NAMES = ("tokens", "words"), ("tags", "ner_tags", "slots", "labels")
HISTORY_NAMES, ANSWER_NAMES = ("history", "question", "query", "prompt"), ("answer", "response", "reply")


@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """One kind of rows. read: a source's rows, carried; back: the rows that a carrier holds."""

    read: Callable[[str, Columns, OnReject], Iterator[Conversation]]
    back: Callable[[Conversation], tuple[T, ...]]


def _read_labelled(source: str, columns: Columns, on_reject: OnReject) -> Iterator[Conversation]:
    return _carried(source, columns, on_reject, labelled_row)


def labelled_row(row: Mapping[str, Any], columns: Columns) -> Conversation:
    """A row of text and label, or a dialogue with its label in the metadata: its first user turn counts."""
    metadata = _metadata(row)
    if isinstance(row.get("messages"), list) and "text" not in columns:
        dialogue = conversation_from_openai(row)
        text: Any = next((m.content for m in dialogue.messages if m.role == "user"), "")
        metadata = dict(dialogue.metadata)
    else:
        text = _field(row, "text", columns, TEXT_NAMES)
    label = _field(row, "label", columns, LABEL_NAMES)
    if not isinstance(text, str) or not text.strip():
        raise DataError("the text is empty or no text")
    if not isinstance(label, str | int) or label == "":
        raise DataError("the label is no text and no number")
    return Conversation((Message("user", text),), metadata={**metadata, "label": str(label)})


def _labels(carrier: Conversation) -> tuple[Labelled, ...]:
    return (Labelled(carrier.messages[0].content, carrier.metadata["label"], _rest(carrier, "label")),)


def _read_tagged(source: str, columns: Columns, on_reject: OnReject) -> Iterator[Conversation]:
    """All tags of a source are in one scheme, which they tell together."""
    carriers = list(_carried(source, columns, on_reject, tagged_row))
    scheme = scheme_of(carrier.metadata["tags"] for carrier in carriers)
    for number, carrier in enumerate(carriers, 1):
        try:
            tags = to_iob2(carrier.metadata["tags"], scheme)
        except DataError as error:
            on_reject(Rejected(source, number, str(error)))
            continue
        yield replace(carrier, metadata={**carrier.metadata, "tags": tags})


def tagged_row(row: Mapping[str, Any], columns: Columns) -> Conversation:
    """A row of tokens and their tags, in any scheme."""
    tokens = _field(row, "tokens", columns, TOKEN_NAMES)
    tags = _field(row, "tags", columns, TAG_NAMES)
    if not (_are_texts(tokens) and _are_texts(tags) and len(tokens) == len(tags)):
        raise DataError("tokens and tags are not two lists of texts of one length")
    held = {**_metadata(row), "tokens": tuple(tokens), "tags": tuple(tags)}
    return Conversation((Message("user", " ".join(tokens)),), metadata=held)


def _tags(carrier: Conversation) -> tuple[Tagged, ...]:
    held = carrier.metadata
    return (Tagged(tuple(held["tokens"]), tuple(held["tags"]), _rest(carrier, "tokens", "tags")),)


def _read_pairs(source: str, columns: Columns, on_reject: OnReject) -> Iterator[Conversation]:
    """Dialogues, or rows that say of one answer whether it fits."""
    if "fits" in columns:
        return _carried(source, columns, on_reject, pair_row)
    return conversations(read_source(source, on_reject=on_reject), on_reject, source)


def pair_row(row: Mapping[str, Any], columns: Columns) -> Conversation:
    """A row of a history, an answer and whether it fits."""
    history = _field(row, "history", columns, HISTORY_NAMES)
    answer, fits = _field(row, "answer", columns, ANSWER_NAMES), _field(row, "fits", columns, ("fits",))
    if not isinstance(answer, str) or str(fits).lower() not in ("0", "1", "true", "false"):
        raise DataError("the answer is no text, or fits is not true, false, 1 or 0")
    dialogue = (
        conversation_from_openai({"messages": history})
        if isinstance(history, list)
        else Conversation((Message("user", str(history)),))
    )
    messages = (*dialogue.messages, Message("assistant", answer))
    return Conversation(messages, metadata={**_metadata(row), "fits": str(fits).lower() in ("1", "true")})


def _pairs(carrier: Conversation) -> tuple[Pair, ...]:
    """Every assistant turn that answers something, unless the row is about its last alone."""
    if "fits" in carrier.metadata:
        return (Pair(carrier.history, carrier.answer, carrier.metadata["fits"]),)
    return tuple(
        Pair(replace(carrier, messages=carrier.messages[:i]), turn.content)
        for i, turn in enumerate(carrier.messages)
        if i and turn.role == "assistant" and turn.content.strip()
    )


LABELLED: Shape[Labelled] = Shape(_read_labelled, _labels)
TAGGED: Shape[Tagged] = Shape(_read_tagged, _tags)
PAIRED: Shape[Pair] = Shape(_read_pairs, _pairs)


def _carried(
    source: str,
    columns: Columns,
    on_reject: OnReject,
    carry: Callable[[Mapping[str, Any], Columns], Conversation],
) -> Iterator[Conversation]:
    path = locate(source)

    def reject(line: int, reason: str) -> None:
        on_reject(Rejected(str(path), line, reason))

    for line, row in _rows(path, columns, reject):
        if not isinstance(row, dict):
            reject(line, "is no object, expected one a row")
            continue
        try:
            yield carry(row, columns)
        except DialoopError as error:
            reject(line, str(error))


def _rows(path: Path, columns: Columns, reject: Reject) -> Iterator[tuple[int, Any]]:
    container, _ = container_of(path)
    if container.kind == "txt":
        text = lines(path, container.compression, container.encoding, reject)
        return conll_rows(text, columns, reject)
    return rows(path, container, reject)


def _field(row: Mapping[str, Any], ours: str, columns: Columns, names: Sequence[str]) -> Any:
    """The value in the column that was named, a dotted path, or in the first of `names` that is there."""
    wanted = [columns[ours]] if ours in columns else list(names)
    for name in wanted:
        found = _at(row, name)
        if found is not None:
            return found
    raise DataError(f"has no {' or '.join(wanted)}: name the column of {ours} in data.columns")


def _at(row: Any, name: str) -> Any:
    if isinstance(row, Mapping) and name in row:
        return row[name]
    head, point, rest = name.partition(".")
    return _at(row[head], rest) if point and isinstance(row, Mapping) and head in row else None


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says besides, as far as a split or a report can go by it."""
    given = row.get("metadata")
    plain = {k: v for k, v in row.items() if isinstance(v, str | int) and k not in ("text", "label")}
    return {**plain, **given} if isinstance(given, dict) else plain


def _rest(carrier: Conversation, *without: str) -> dict[str, Any]:
    return {k: v for k, v in carrier.metadata.items() if k not in without}


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(each, str) for each in values)
