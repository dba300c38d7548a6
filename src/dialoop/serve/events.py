"""Server-sent events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DONE = b"data: [DONE]\n\n"
"""The last event of a stream that ends well."""


def event(value: Mapping[str, Any]) -> bytes:
    """An event whose data is `value` as JSON."""
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
