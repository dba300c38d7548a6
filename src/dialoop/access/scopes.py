"""What a key may be for."""

from __future__ import annotations

from collections.abc import Iterable

from dialoop.errors import ConfigError, echo, nearest

SCOPES = {
    "inference": "ask models: chat, completions, responses, embeddings, moderations, scores",
    "data": "files, uploads and stored completions of the project",
    "jobs": "fine-tuning jobs and evaluations of the project",
    "metrics": "read /metrics",
    "admin": "everything, loading adapters and deleting models included",
}
USUAL = ("inference", "data", "jobs")
ALL = frozenset({"admin"})


def read_scopes(text: str) -> tuple[str, ...]:
    """Names that commas part, in the table's order. Raises ConfigError."""
    asked = {name.strip() for name in text.split(",")} - {""}
    for name in asked - SCOPES.keys():
        raise ConfigError(f"no scope {echo(name)}{nearest(name, SCOPES)}")
    if not asked:
        raise ConfigError(f"--scopes names none: give some of {', '.join(SCOPES)}")
    return tuple(name for name in SCOPES if name in asked)


def covers(held: Iterable[str], needed: Iterable[str]) -> bool:
    """Whether a key with the scopes `held` may do what needs all of `needed`."""
    have = set(held)
    return "admin" in have or have >= set(needed)
