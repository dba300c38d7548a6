"""The periods of budgets, in the UTC calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from dialoop.store.keys import Period

EPOCH = date(1970, 1, 1)


def day_of(micros: int) -> int:
    """The UTC day, in days since 1970."""
    return micros // 86_400_000_000


def period_start(period: Period, day: int) -> int:
    """The first day of the period that `day` is in."""
    if period == "day":
        return day
    first = (EPOCH + timedelta(days=day)).replace(day=1)
    return (first - EPOCH).days


def period_end(period: Period, day: int) -> int:
    """The first day of the next period."""
    if period == "day":
        return day + 1
    first = (EPOCH + timedelta(days=day)).replace(day=1)
    return ((first + timedelta(days=32)).replace(day=1) - EPOCH).days


def shown(day: int) -> str:
    """`2026-12-01 00:00 UTC`."""
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return when.strftime("%Y-%m-%d %H:%M UTC")
