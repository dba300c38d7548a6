"""OpenAI's categories, and what is done with what falls into one."""

from __future__ import annotations

from typing import Literal, get_args

Category = Literal[
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent",
    "self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence",
    "violence/graphic",
]  # fmt: skip
CATEGORIES: tuple[Category, ...] = get_args(Category)
Action = Literal["block", "mask", "flag"]
"""Refuse or end the text there; put stars in its place; let it pass. Each is recorded for review."""
ACTIONS: tuple[Action, ...] = get_args(Action)
