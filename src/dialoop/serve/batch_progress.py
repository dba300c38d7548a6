"""What a batch has answered so far: two files that only grow, and are its output when it ends."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from dialoop.store.identity import new_id

OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"


class Progress:
    """The answers in a batch's folder, those of an earlier server included.

    A line that a killed server left half-written is cut off, so that its request is asked again.
    """

    def __init__(self, folder: Path) -> None:
        self.done: set[str] = set()
        self.gave_up = False
        """Some requests were not asked: the batch ended before."""
        self.usage: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._files: dict[str, IO[bytes]] = {}
        for name in (OUTPUT, ERRORS):
            self._files[name] = (folder / name).open("a+b")
            self._recover(name)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()

    def answered(self, custom_id: str, status: int, body: Any) -> None:
        """Write down what a request was answered with."""
        name = OUTPUT if status == 200 else ERRORS
        response = {"status_code": status, "request_id": new_id("req"), "body": body}
        self._add(name, {"custom_id": custom_id, "response": response, "error": None})

    def not_asked(self, custom_id: str, code: str, message: str) -> None:
        """Write down why a request was not answered."""
        error = {"code": code, "message": message}
        self._add(ERRORS, {"custom_id": custom_id, "response": None, "error": error})

    def _add(self, name: str, row: Mapping[str, Any]) -> None:
        row = {"id": new_id("batch_req_"), **row}
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if row["custom_id"] not in self.done:
                self._files[name].write(line)
                self._files[name].flush()
                self._count(name, row)

    def _recover(self, name: str) -> None:
        file, good = self._files[name], 0
        file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                self._count(name, json.loads(line))
            except (ValueError, KeyError, TypeError):
                break
            good += len(line)
        file.truncate(good)

    def _count(self, name: str, row: Mapping[str, Any]) -> None:
        self.done.add(row["custom_id"])
        self.counts[name] += 1
        self.gave_up = self.gave_up or row["error"] is not None
        if name == OUTPUT:
            self.usage.update(_usage(row["response"]["body"].get("usage") or {}))


def _usage(told: Mapping[str, Any]) -> dict[str, int]:
    """The tokens of an answer, by the names that batches have for them."""
    read, made = told.get("prompt_tokens", told.get("input_tokens", 0)), told.get("total_tokens", 0)
    details = told.get("prompt_tokens_details") or told.get("input_tokens_details") or {}
    thought = told.get("completion_tokens_details") or told.get("output_tokens_details") or {}
    return {
        "input": read,
        "output": made - read,
        "cached": details.get("cached_tokens") or 0,
        "reasoning": thought.get("reasoning_tokens") or 0,
    }
