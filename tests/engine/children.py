"""Engines in child processes, and what they say in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from dialoop.engine.process import ProcessEngine
from dialoop.types import Engine, ModelRef
from tests.tiny import tiny_model

WAIT = 240
"""Seconds until a test gives up on a child."""


@contextmanager
def child_engine(base: Path | None = None, **options: Any) -> Iterator[ProcessEngine]:
    """A tiny model in a child process; usable from any event loop."""
    engine = ProcessEngine([ModelRef("tiny", base or tiny_model())], **options)
    try:
        yield engine
    finally:
        close(engine)


def close(engine: Engine) -> None:
    """From anywhere, an event loop's thread too."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, engine.aclose()).result()


class Heard(logging.Handler):
    """Waits for words in the engine's log."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: SimpleQueue[str] = SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.put(f"{record.levelname} {record.getMessage()}")

    def wait_for(self, words: str) -> str:
        """The first message with these words; those before it are forgotten."""
        while words not in (message := self._messages.get(timeout=WAIT)):
            pass
        return message


@contextmanager
def hearing() -> Iterator[Heard]:
    """What the engine's log says meanwhile."""
    log, heard = logging.getLogger("dialoop.engine"), Heard()
    log.addHandler(heard)
    try:
        yield heard
    finally:
        log.removeHandler(heard)
