"""The prompt template that the rows of a recipe are put into."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dialoop.config.settings import Settings


class RowPrompt(Settings):
    """A prompt template that rows are put into: what is tuned is what is asked."""

    name: str = Field(min_length=1)
    """NAME or NAME@VERSION of the prompts in the store; the version is kept with the model."""
    task: Literal["reply", "classification"] | None = None
    """`classification`: a row is a text, or the first user turn of a dialogue, and its label; `reply`: a
    dialogue; None = what the first row is."""
    values: dict[str, Any] = Field({})
    """Of its variables. A row's metadata give those that are named there, and rows with labels `labels`."""
    without_examples: float = Field(0.0, ge=0, lt=1)
    """Share of the rows that are learnt without the template's examples: then it answers in both ways."""
