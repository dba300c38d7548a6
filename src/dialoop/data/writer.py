"""Conversations and preferences to OpenAI's JSONL, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dialoop.chat.wire import conversation_to_openai, preference_to_openai
from dialoop.data.contrast import Contrast
from dialoop.types import Conversation

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def write_openai(path: Path, conversations: Iterable[Conversation]) -> int:
    """The number of conversations written, one a line, gzipped where the name ends in .gz.

    The file appears under its name only when all are written; metadata goes under `metadata`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with _text_file(partial, path.suffix == ".gz") as file:
            for conversation in conversations:
                file.write(openai_line(conversation))
                count += 1
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def openai_line(conversation: Conversation) -> str:
    """One line of OpenAI's format for conversations, or of the one for preferences."""
    if isinstance(conversation, Contrast):
        return _ENCODER.encode(preference_to_openai(conversation.preference)) + "\n"
    return _ENCODER.encode(conversation_to_openai(conversation)) + "\n"


def _text_file(path: Path, gzipped: bool) -> Any:
    if gzipped:
        return gzip.open(path, "wt", encoding="utf-8")
    return path.open("w", encoding="utf-8", newline="\n")
