"""Where the examples find a server, and how they show what it said.

OPENAI_BASE_URL and OPENAI_API_KEY say where and by which key, DIALOOP_MODEL which model.
"""

from __future__ import annotations

import json
import os

URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
KEY = os.environ.setdefault("OPENAI_API_KEY", "none")
MODEL = os.environ.get("DIALOOP_MODEL", "dialoop-base")


def show(name: str, value: object) -> None:
    """A line: the name, and the value as JSON."""
    print(f"{name}: {json.dumps(value, ensure_ascii=False)}")
