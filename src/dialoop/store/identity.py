"""Ids and times: prefix + UUIDv7, and UTC integer microseconds."""

from __future__ import annotations

import secrets
import time
import uuid


def now_micros() -> int:
    """The time as UTC integer microseconds since 1970."""
    return time.time_ns() // 1000


def uuid7(millis: int | None = None) -> uuid.UUID:
    """A time-ordered id (RFC 9562, section 5.7): 48 bits of Unix milliseconds, 74 random bits."""
    millis = time.time_ns() // 1_000_000 if millis is None else millis
    value = (millis & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def new_id(prefix: str) -> str:
    """`prefix-` and 32 hexadecimal digits, sorted by the time of making to the millisecond."""
    return f"{prefix}-{uuid7().hex}"
