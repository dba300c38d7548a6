"""Keeps requests away from what has failed, until it has had a rest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dialoop.errors import EngineDownError, RequestError


class Breaker:
    """Opens after `failures` EngineDownErrors in a row; after `rest` seconds one request may try, alone."""

    def __init__(
        self, name: str, *, failures: int, rest: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._limit, self._rest, self._clock = name, failures, rest, clock
        self._failed = 0
        self._until = 0.0
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether it failed too often and has not been seen well since."""
        return self._failed >= self._limit

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Around one request. Raises EngineDownError where it is not let through; a hang-up tells nothing."""
        trial = self._admit()
        try:
            yield
        except EngineDownError:
            self.fail()
            raise
        except RequestError:
            self.mend()
            raise
        finally:
            self._trying = self._trying and not trial

    def mend(self) -> None:
        """It answers."""
        self._failed = 0

    def fail(self) -> None:
        """It did not answer."""
        self._failed += 1
        self._until = self._clock() + self._rest

    def _admit(self) -> bool:
        """Whether this request is the one that tries."""
        if not self.open:
            return False
        left = self._until - self._clock()
        if left > 0 or self._trying:
            raise EngineDownError(
                f"{self._name} failed {self._failed} times in a row and is left alone for now: try again",
                retry_after=max(1, math.ceil(left)),
            )
        self._trying = True
        return True
