"""The base model that travels inside the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SHIPPED = "dialoop-base"


def shipped_directory(name: str = SHIPPED) -> Path:
    """Where a shipped model lies, whether or not this package has it."""
    return Path(str(files("dialoop.assets").joinpath(name)))
