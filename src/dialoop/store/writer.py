"""Writing beside the answers: one thread commits together whatever waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

import sqlalchemy as sa

from dialoop.errors import OverloadedError, StoreError
from dialoop.store.artefacts import reason
from dialoop.store.database import writing

log = logging.getLogger("dialoop.store")

Write = Callable[[sa.Connection], None]
Waiting = tuple[Write, "Future[None]"]
MOST_WAITING = 2000
RETRY_SECONDS = 1.0


class Writer:
    """Takes writes without waiting for the disk, and loses none while it lives.

    A database that refuses is asked again until it takes them; what it will never take, such as a row that
    breaks a rule, is left out alone and logged. A write that was taken is on disk once its future is done,
    and after `settle` or `close`.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = writing(engine)
        self._waiting: list[Waiting] = []
        self._changed = threading.Condition()
        self._taken = self._done = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="dialoop-writer", daemon=True)
        self._thread.start()

    def check_room(self) -> None:
        """Raises OverloadedError where so much waits that more should not be begun."""
        if len(self._waiting) >= MOST_WAITING:
            raise OverloadedError(
                "the database is behind with what is to be stored: try again", retry_after=5
            )

    def put(self, write: Write) -> Future[None]:
        """Hand a write over; from any thread. The future's exception is StoreError where it was left out."""
        written: Future[None] = Future()
        written.set_running_or_notify_cancel()  # whoever stops waiting takes nothing back
        with self._changed:
            self._waiting.append((write, written))
            self._taken += 1
            self._changed.notify_all()
        return written

    def settle(self) -> None:
        """Wait until all that was handed over before is written."""
        with self._changed:
            goal = self._taken
            self._changed.wait_for(lambda: self._done >= goal)

    def close(self) -> None:
        """Write what is left and end; later writes are never made."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                writes, self._waiting = self._waiting, []
            if not writes:
                return
            self._commit(writes)
            with self._changed:
                self._done += len(writes)
                self._changed.notify_all()

    def _commit(self, writes: list[Waiting]) -> None:
        """All in one transaction, or one by one where that fails."""
        try:
            self._try(writes)
        except Exception:
            for each in writes:
                self._insist(each)

    def _insist(self, waiting: Waiting) -> None:
        while True:
            try:
                return self._try([waiting])
            except sa.exc.OperationalError as error:
                log.error("the database takes nothing (%s), trying again", reason(error))
                with self._changed:
                    if self._closing:
                        log.error("a write was given up at shutdown")
                        return _left_out(waiting)
                    self._changed.wait(RETRY_SECONDS)
            except Exception as error:
                log.error("a write was left out: %s", type(error).__name__)
                return _left_out(waiting)

    def _try(self, writes: list[Waiting]) -> None:
        with self._engine.begin() as connection:
            for write, _ in writes:
                write(connection)
        for _, written in writes:
            written.set_result(None)


def _left_out(waiting: Waiting) -> None:
    waiting[1].set_exception(StoreError("the database did not take what was to be stored: its log says why"))
