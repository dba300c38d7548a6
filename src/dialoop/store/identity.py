"""Ids and times: prefix + UUIDv7, and UTC integer microseconds."""

from __future__ import annotations

import secrets
import time
import uuid


def now_micros() -> int:
    """The time as UTC integer microseconds since 1970."""
    return time.time_ns() // 1000


def uuid7(nanos: int | None = None) -> uuid.UUID:
    """A time-ordered id (RFC 9562, sections 5.7 and 6.2, method 3).

    48 bits of Unix milliseconds, 12 bits of the fraction of one (a step is 244 ns), 62 random bits.
    """
    nanos = time.time_ns() if nanos is None else nanos
    millis, rest = divmod(nanos, 1_000_000)
    value = (millis & (2**48 - 1)) << 80 | (rest * 4096 // 1_000_000) << 64 | secrets.randbits(62)
    return uuid.UUID(int=value | 0x7 << 76 | 0x2 << 62)


def new_id(prefix: str) -> str:
    """`prefix-`, or a prefix that ends with `_`, and 32 hexadecimal digits, sorted by the time of making."""
    return f"{prefix}{'' if prefix.endswith('_') else '-'}{uuid7().hex}"
