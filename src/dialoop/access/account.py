"""What a key has used, and what it may use still: reserved before the work, settled after it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from dialoop.access.bucket import Bucket
from dialoop.access.calendar import day_of, period_end, period_start, shown
from dialoop.errors import OverloadedError, QuotaError
from dialoop.store.identity import now_micros
from dialoop.store.keys import Key

RATE_HEADERS = tuple(
    f"x-ratelimit-{what}-{kind}"
    for what in ("limit", "remaining", "reset")
    for kind in ("requests", "tokens")
)
Settle = Callable[[str, int, int], None]
"""Takes a model's name, prompt tokens and completion tokens."""


@dataclass(slots=True)
class Reservation:
    """Tokens that a request may come to use: of the minute's, and of the budget."""

    minute: int
    budget: int


class Account:
    """One key's buckets and budget; belongs to the server's event loop.

    written: tokens of the period that the store knows of.  settle: is told what a request has used.
    clock: monotonic seconds.  wall: UTC microseconds.
    """

    def __init__(
        self,
        key: Key,
        written: int,
        settle: Settle,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = now_micros,
    ) -> None:
        self.key = key
        self._settle, self._clock, self._wall = settle, clock, wall
        now, allowed = clock(), key.allowance
        self.requests = None if allowed.rpm is None else Bucket.full(allowed.rpm, now)
        self.tokens = None if allowed.tpm is None else Bucket.full(allowed.tpm, now)
        self._since = self._period()
        self._written, self._unwritten, self._reserved = written, 0, 0

    @property
    def since(self) -> int:
        """The UTC day on which the budget's period began."""
        self._turn()
        return self._since

    @property
    def left(self) -> int | None:
        """Tokens of the budget that are neither used nor reserved; None = it has no bound.

        Below 0 where an open request without a bound may use more than there is.
        """
        self._turn()
        budget = self.key.allowance.budget
        return None if budget is None else budget - self._written - self._unwritten - self._reserved

    def count_request(self) -> None:
        """One more request. Raises OverloadedError where the minute has had too many."""
        now = self._clock()
        if self.requests is None:
            return
        if not self.requests.has(1, now):
            raise _too_fast(self.key, "requests", self.requests, 1, now)
        self.requests.take(1, now)

    def reserve(self, prompt: int, answer: int | None, room: int) -> Reservation:
        """Set tokens aside. Raises QuotaError, or OverloadedError where others that are open hold them.

        prompt: an estimate.  answer: the longest that was asked for, or None.  room: the longest that there
        can be.  An answer without a bound counts against the minute when it is there, and against the budget
        at once, were it more than is left: so a budget is overrun by one request at most.
        """
        now, minute, left = self._clock(), prompt + (answer or 0), self.left
        if self.tokens is not None and not self.tokens.has(minute, now):
            raise _too_fast(self.key, "tokens", self.tokens, minute, now)
        if left is not None and left < max(minute, 1):
            raise self._taken() if left + self._reserved >= max(minute, 1) else self._spent_up(left, minute)
        budget = minute if answer is not None or left is None else prompt + room
        self._reserved += budget
        if self.tokens is not None:
            minute = min(minute, self.tokens.limit)
            self.tokens.take(minute, now)
        return Reservation(minute, budget)

    def settle(self, held: Reservation, model: str, prompt: int, completion: int) -> None:
        """The request that `held` was for has used so many tokens; one that used none was refused."""
        self._turn()
        self._reserved -= held.budget
        self._unwritten += prompt + completion
        if self.tokens is not None:
            self.tokens.take(prompt + completion - held.minute, self._clock())
        if prompt or completion:
            self._settle(model, prompt, completion)

    def wrote(self, total: int, of_these: int) -> None:
        """The store knows of `total` tokens in the period now, `of_these` from here."""
        self._written, self._unwritten = total, self._unwritten - of_these

    def unwritten(self) -> int:
        """Tokens of the period that the store does not know of."""
        self._turn()
        return self._unwritten

    def headers(self) -> dict[str, str]:
        """OpenAI's x-ratelimit headers."""
        now, found = self._clock(), dict[str, str]()
        for kind, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                found[f"x-ratelimit-limit-{kind}"] = str(bucket.limit)
                found[f"x-ratelimit-remaining-{kind}"] = str(max(0, math.floor(bucket.left(now))))
                found[f"x-ratelimit-reset-{kind}"] = duration(bucket.wait(bucket.limit, now))
        return found

    def _period(self) -> int:
        return period_start(self.key.allowance.period or "day", day_of(self._wall()))

    def _turn(self) -> None:
        """A new period begins with nothing used."""
        since = self._period()
        if since > self._since:
            self._since, self._written, self._unwritten = since, 0, 0

    def _taken(self) -> OverloadedError:
        return OverloadedError(
            f"what is left of the budget of key {self.key.name!r} is set aside for its open requests: try "
            f"again when they have ended, or send them with max_tokens",
        )

    def _spent_up(self, left: int, wanted: int) -> QuotaError:
        allowed, day = self.key.allowance, day_of(self._wall())
        period = allowed.period or "day"
        end = period_end(period, day)
        return QuotaError(
            f"{max(left, 0)} of this key's {allowed.budget} tokens a {period} are left and the request may "
            f"need {wanted}: wait until {shown(end)}, or ask for a larger budget",
            retry_after=math.ceil(end * 86_400 - self._wall() / 1e6),
        )


def _too_fast(key: Key, kind: str, bucket: Bucket, wanted: int, now: float) -> OverloadedError:
    wait = max(1, math.ceil(bucket.wait(wanted, now)))
    return OverloadedError(
        f"{kind} came faster than the {bucket.limit} a minute of key {key.name!r}: try again in {wait} s",
        retry_after=wait,
    )


def duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms" if seconds > 0 else "0s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


_current: ContextVar[Account | None] = ContextVar("dialoop-account", default=None)


def current_account() -> Account | None:
    """Whose request is being answered; None where nothing is counted."""
    return _current.get()


@contextmanager
def charged_to(account: Account | None) -> Iterator[None]:
    """Work within is counted on `account`."""
    token = _current.set(account)
    try:
        yield
    finally:
        _current.reset(token)
