"""The rows of an evaluation run, and what a model is asked about each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dialoop.data.training_file import json_objects
from dialoop.errors import DataError, EvalError
from dialoop.evals.graders import filled, found
from dialoop.serve.eval_wire import Completions, FileContent, FileId, Jsonl, Stored, Template
from dialoop.store.registry import Store
from dialoop.store.stored import StoredCompletion


@dataclass(frozen=True, slots=True)
class Asked:
    """item, sample: what graders call so; sample None = a model is to make it."""

    item: Mapping[str, Any]
    sample: Mapping[str, Any] | None


def rows_of(store: Store, source: Jsonl | Completions, folder: Path) -> Iterator[Asked]:
    """Every row. folder: where a file was put that the run reads. Raises DataError for a bad line."""
    match source.source:
        case FileContent(content=content):
            yield from (Asked(row.item, row.sample) for row in content)
        case FileId(id=file_id):
            yield from (_row(line, value) for line, value in json_objects(folder / file_id))
        case Stored() as wanted:
            yield from islice(_stored(store, wanted, source.model), wanted.limit)


def _row(line: int, value: Mapping[str, Any]) -> Asked:
    item, sample = value.get("item"), value.get("sample")
    if not isinstance(item, dict) or not isinstance(sample, dict | None):
        raise DataError(f'line {line}: expected an object "item", and perhaps an object "sample"')
    return Asked(item, sample)


def _stored(store: Store, wanted: Stored, model: str | None) -> Iterator[Asked]:
    first, last = wanted.created_after, wanted.created_before
    for kept in store.stored.all(model=wanted.model, metadata=wanted.metadata or {}):
        seconds = kept.created // 1_000_000
        if (first is None or seconds >= first) and (last is None or seconds <= last):
            yield Asked(_item(kept), None if model is not None else _sample(kept))


def _item(kept: StoredCompletion) -> dict[str, Any]:
    return {
        "id": kept.id,
        "input": list(kept.messages),
        "metadata": dict(kept.metadata),
        "output": _text(kept),
    }


def _sample(kept: StoredCompletion) -> dict[str, Any]:
    choice = kept.completion["choices"][0]
    return {"model": kept.model, "output_text": _text(kept), "finish_reason": choice.get("finish_reason")}


def _text(kept: StoredCompletion) -> str:
    return kept.completion["choices"][0]["message"].get("content") or ""


def body_of(source: Completions, row: Asked) -> dict[str, Any]:
    """The chat request of a row. Raises EvalError where the row has not what its messages name."""
    return {**source.sampling_params, "model": source.model, "messages": _messages(source, row)}


def _messages(source: Completions, row: Asked) -> list[Any]:
    values = {"item": row.item}
    if isinstance(source.input_messages, Template):
        return [_message(message, values) for message in source.input_messages.template]
    path = "item.input" if source.input_messages is None else source.input_messages.item_reference
    messages = found(path, values)
    if not isinstance(messages, list):
        raise EvalError(f"{path} holds no list of messages")
    return messages


def _message(message: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text", "") if isinstance(part, dict) else str(part) for part in parts]
    return {"role": message.get("role", "user"), "content": "\n".join(filled(text, values) for text in texts)}
