"""The engine in a child process: HTTP and decoding share no interpreter, nor does one fall with the other."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Unpack

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.engine.front import Front
from dialoop.engine.mail import Mail
from dialoop.engine.reader import Reader
from dialoop.engine.roster import AnyKnown, Known, KnownEncoder, KnownHead
from dialoop.engine.wire import (
    CoreOptions,
    Deliver,
    Line,
    Loading,
    Opened,
    Said,
    Setup,
    Shelved,
    Unloading,
    Work,
)
from dialoop.errors import EngineDownError, ModelError
from dialoop.models.allocator import in_huge_pages
from dialoop.models.head_config import labels_of
from dialoop.models.native.build import with_brief_waits
from dialoop.types import Condition, ModelRef, Precision

log = logging.getLogger("dialoop.engine")

STABLE = 60.0
"""Seconds after which an end counts as the first one again."""
LONGEST_WAIT = 30.0
"""Seconds before a start, at most."""
GRACE = 10.0
"""Seconds that a child gets to end by itself."""


class ProcessEngine(Front):
    """Answers with models that a child process loads; also implements `dialoop.types.Health`.

    Made once the models are loaded. Raises what loading them raised, or EngineDownError where the child
    ended. A child that ends by itself is started again; `restarts` times in a row, unless it holds longer.
    max_open: as in `Front`; context, precision: as for `open_models`; options: as in `LocalCore`.
    """

    def __init__(
        self,
        refs: Sequence[ModelRef],
        *,
        context: int | None = None,
        precision: Precision | None = None,
        max_open: int = 256,
        restarts: int = 5,
        **options: Unpack[CoreOptions],
    ) -> None:
        mail = Mail()
        self._children = ChildCore(
            Setup(tuple(refs), context, precision, options), mail.deliver, restarts=restarts
        )
        try:
            known = _known(self._children.opened)
        except BaseException:
            self._children.close()
            raise
        super().__init__(known, self._children, mail, max_open=max_open)

    def health(self) -> Condition:
        """`starting` from the end of a child to the moment that the next one has loaded the models."""
        return self._children.condition

    @property
    def pid(self) -> int:
        """Of the child that runs now, or of the last one."""
        return self._children.pid


def _known(opened: Sequence[Opened]) -> dict[str, AnyKnown]:
    """By name, with the tokenizers, one a decoder's base. Raises ModelError."""
    decoders = {each.folder for each in opened if each.served.kind == "decoder"}
    tokenizers = {folder: ChatTokenizer.load(folder) for folder in decoders}
    return {each.served.name: _each(each, tokenizers) for each in opened}


def _each(opened: Opened, tokenizers: Mapping[Path, ChatTokenizer]) -> AnyKnown:
    if opened.folder in tokenizers:
        return Known(opened, tokenizers[opened.folder])
    reader = Reader.load(opened.folder, opened.served.context, opened.size)
    if opened.served.kind == "encoder":
        return KnownEncoder(opened, reader)
    return KnownHead(opened, reader, labels_of(opened.folder))


def _alike(opened: Sequence[Opened]) -> list[tuple[object, ...]]:
    """What may not change from one child to the next, because the front goes by it."""
    return [(each.served.name, each.served.context, each.size, each.merged) for each in opened]


class ChildCore:
    """A core in a child process, started again when it ends; implements `dialoop.engine.wire.Core`.

    The adapters that were loaded and not unloaded since are those of every child.
    """

    def __init__(self, setup: Setup, deliver: Deliver, *, restarts: int) -> None:
        self._setup = setup
        self._deliver = deliver
        self._restarts = restarts
        self._lock = Lock()
        self._open: set[int] = set()
        self._coming: dict[int, Loading] = {}
        self._shelved: dict[str, tuple[str, Shelved]] = {}
        self._late: list[tuple[int, Unloading]] = []
        self._closing = Event()
        self._retry_after = 1
        self.condition: Condition = "starting"
        self.opened: tuple[Opened, ...] = ()
        self.opened = self._start()
        self._thread = Thread(target=self._run, name="dialoop-child", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the child that runs now, or of the last one."""
        return self._child.process.pid

    def submit(self, number: int, work: Work) -> None:
        """Hand `work` to the child. Raises EngineDownError while there is none, unless it is to unload."""
        with self._lock:
            if self._closing.is_set():
                raise RuntimeError("the engine is closed")
            if isinstance(work, Unloading):
                self._forget(work.adapter)
            if self.condition == "ok":
                self._hand(number, work)
            elif isinstance(work, Unloading):
                self._late.append((number, work))
            else:
                raise self._down()

    def cancel(self, number: int) -> None:
        """The child forgets it, unless that has ended."""
        with self._lock:
            self._coming.pop(number, None)
            if number in self._open:
                self._open.remove(number)
                self._child.send((number, None))

    def close(self) -> None:
        """End the child; open work gets an error."""
        with self._lock:
            self._closing.set()
            child = self._child
        child.end()
        self._thread.join()

    def _hand(self, number: int, work: Work) -> None:
        self._open.add(number)
        if isinstance(work, Loading):
            self._coming[number] = work
        self._child.send((number, work))

    def _forget(self, key: str) -> None:
        """The next child is not to have this adapter, whose files may be gone by then."""
        if self._shelved.pop(key, None) is None:
            refs = [replace(ref, adapter=None) if ref.name == key else ref for ref in self._setup.refs]
            self._setup = replace(self._setup, refs=tuple(refs))

    def _heard(self, said: Said) -> None:
        """Remember what was loaded."""
        with self._lock:
            for number, event in said if self._coming else ():
                loading = self._coming.pop(number, None)
                if loading is not None and isinstance(event, Shelved):
                    self._shelved[event.key] = (loading.model, event)

    def _run(self) -> None:
        """Children, one after the other, up to `close` or until too many in a row have fallen soon."""
        falls = 0
        while falls <= self._restarts:
            lived, cause = self._live()
            if self._closing.is_set():
                self._lose(RuntimeError("the engine was closed"))
                return
            falls = 1 if lived > STABLE else falls + 1
            self._fall(falls, cause)

    def _live(self) -> tuple[float, str]:
        """One child, started unless there is one: how long it could answer, in seconds, and how it ended."""
        try:
            if self.condition != "ok":
                self._start()
                log.warning("the engine's process is there again, pid %d", self.pid)
        except Exception as error:
            return 0.0, str(error)
        begun = time.monotonic()
        with contextlib.suppress(EOFError):
            while True:
                said = self._child.line.receive()
                self._heard(said)
                self._deliver(said)
        return time.monotonic() - begun, self._child.end()

    def _start(self) -> tuple[Opened, ...]:
        """A new child, once it has loaded the models. Raises what it raised."""
        begun = time.monotonic()
        with self._lock:
            setup = replace(self._setup, shelved=tuple(self._shelved.values()))
        self._child = child = Child(setup)
        try:
            if self._closing.is_set():
                raise RuntimeError("the engine was closed")
            opened = child.ready()
            if self.opened and _alike(opened) != _alike(self.opened):
                raise ModelError("the models on disk are not those that were loaded at first")
        except BaseException:
            child.end()
            raise
        self._loading = time.monotonic() - begun
        with self._lock:
            self.condition = "ok"
            for number, work in self._late:
                self._hand(number, work)
            self._late = []
        return opened

    def _fall(self, falls: int, cause: str) -> None:
        """Tell the log and those who wait, and let some time pass before the next start."""
        wait = min(2.0 ** (falls - 1) - 1, LONGEST_WAIT)
        with self._lock:
            self.condition = "starting" if falls <= self._restarts else "failed"
            self._retry_after = math.ceil(wait + self._loading)
        lost = self._lose(self._down())
        if self.condition == "failed":
            log.critical(
                "the engine's process ended %d times in a row, at last: %s; it is not started again: mend it "
                "(where memory ran out, with a smaller --max-rows or --max-model-len) and restart the server",
                falls, cause,
            )  # fmt: skip
            return
        log.error(
            "the engine's process ended: %s; %d open requests failed, another start in %.0f s",
            cause, lost, wait,
        )  # fmt: skip
        self._closing.wait(wait)

    def _lose(self, error: Exception) -> int:
        """End all open work; how much there was."""
        with self._lock:
            lost, self._open = self._open, set()
            self._coming = {}
        self._deliver([(number, error) for number in lost])
        return len(lost)

    def _down(self) -> EngineDownError:
        if self.condition == "failed":
            return EngineDownError(
                "the engine has ended too often and is not started again: see the server's log",
                retry_after=math.ceil(STABLE),
            )
        return EngineDownError(
            f"the engine's process has ended and is being started again: try again in {self._retry_after} s",
            retry_after=self._retry_after,
        )


class Child:
    """One life of the process, the line to it, and what waits to be sent."""

    def __init__(self, setup: Setup) -> None:
        mine, theirs = socket.socketpair()
        self.line = Line(mine)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dialoop.engine.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=with_brief_waits(in_huge_pages({**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})),
                pass_fds=[theirs.fileno()],
            )
        self._outbox: SimpleQueue[Any] = SimpleQueue()
        Thread(target=self._write, name="dialoop-outbox", daemon=True).start()
        self.send(setup)

    def send(self, frame: Any) -> None:
        """Never waits; what a child that has ended does not get is lost with it."""
        self._outbox.put(frame)

    def ready(self) -> tuple[Opened, ...]:
        """What it serves, once the models are loaded. Raises what loading raised, or EngineDownError."""
        try:
            answer: Any = self.line.receive()
        except EOFError:
            raise EngineDownError(
                f"the engine's process ended while it loaded the models: {self.end()}: see its words above; "
                f"where memory ran out, serve fewer or smaller models"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        opened: tuple[Opened, ...] = answer
        return opened

    def end(self) -> str:
        """Hang up and wait for its end, by force where it takes too long; how it ended."""
        self._outbox.put(None)
        self.line.close()
        try:
            status = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            for frame in iter(self._outbox.get, None):
                self.line.send(frame)
