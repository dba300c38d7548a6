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
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Unpack

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.engine.front import Front, Known, Mail
from dialoop.engine.wire import CoreOptions, Deliver, Line, Setup, Work
from dialoop.errors import EngineDownError
from dialoop.types import Condition, ModelRef, Precision, Served

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
            known = _known(refs, self._children.served)
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


def _known(refs: Sequence[ModelRef], served: Sequence[Served]) -> dict[str, Known]:
    """By name, with the tokenizers, one a base. Raises ModelError."""
    bases = {ref.name: ref.base for ref in refs}
    tokenizers = {base: ChatTokenizer.load(base) for base in set(bases.values())}
    return {each.name: Known(each, tokenizers[bases[each.name]]) for each in served}


class ChildCore:
    """A core in a child process, started again when it ends; implements `dialoop.engine.wire.Core`."""

    def __init__(self, setup: Setup, deliver: Deliver, *, restarts: int) -> None:
        self._setup = setup
        self._deliver = deliver
        self._restarts = restarts
        self._lock = Lock()
        self._open: set[int] = set()
        self._closing = Event()
        self._retry_after = 1
        self.condition: Condition = "starting"
        self.served = self._start()
        self._thread = Thread(target=self._run, name="dialoop-child", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the child that runs now, or of the last one."""
        return self._child.process.pid

    def submit(self, number: int, work: Work) -> None:
        """Hand `work` to the child. Raises EngineDownError while there is none."""
        with self._lock:
            if self._closing.is_set():
                raise RuntimeError("the engine is closed")
            if self.condition != "ok":
                raise self._down()
            self._open.add(number)
            self._child.send((number, work))

    def cancel(self, number: int) -> None:
        """The child forgets it, unless that has ended."""
        with self._lock:
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
                self._deliver(self._child.line.receive())
        return time.monotonic() - begun, self._child.end()

    def _start(self) -> tuple[Served, ...]:
        """A new child, once it has loaded the models. Raises what it raised."""
        begun = time.monotonic()
        self._child = child = Child(self._setup)
        try:
            if self._closing.is_set():
                raise RuntimeError("the engine was closed")
            served = child.ready()
        except BaseException:
            child.end()
            raise
        self._loading = time.monotonic() - begun
        self.condition = "ok"
        return served

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
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                pass_fds=[theirs.fileno()],
            )
        self._outbox: SimpleQueue[Any] = SimpleQueue()
        Thread(target=self._write, name="dialoop-outbox", daemon=True).start()
        self.send(setup)

    def send(self, frame: Any) -> None:
        """Never waits; what a child that has ended does not get is lost with it."""
        self._outbox.put(frame)

    def ready(self) -> tuple[Served, ...]:
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
        served: tuple[Served, ...] = answer
        return served

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
