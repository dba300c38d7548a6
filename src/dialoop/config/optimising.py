"""What an optimiser of prompts may try, and how much it may ask."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dialoop.config.settings import Settings

Selection = Literal["bm25", "embeddings", "mmr", "balanced"]


class OptimiseSettings(Settings):
    """A budget, and where candidates come from."""

    budget: int = Field(2000, ge=10)
    """Questions put to candidates, all together; the last test comes on top."""
    trial_cases: int = Field(100, ge=4)
    """Cases that candidates are chosen by."""
    test_cases: int = Field(200, ge=4)
    """Other cases, on which the best is compared with the prompt as it came; nothing is chosen by them."""
    by: Literal["answers", "likelihood"] | None = None
    """Judge candidates by answers, or by log P(reference), which costs less; None = labels are judged by
    their probability, and texts by likelihood."""
    instructions: tuple[str, ...] = ()
    """System messages to try, hand-given."""
    proposals: int = Field(4, ge=0, le=64)
    """Instructions that the proposer is asked for; without one there are none."""
    mutations: int = Field(6, ge=0)
    """Small changes to instructions in each round: sentences left out, exchanged, added."""
    shots: tuple[int, ...] = (2, 4, 8)
    """Sizes of example sets; none = no examples are tried."""
    example_sets: int = Field(2, ge=0)
    """Sets of examples of each size, drawn at random."""
    selections: tuple[Selection, ...] = ("bm25", "mmr", "balanced")
    """Ways to choose examples for each question out of `pool`."""
    pool: int = Field(1000, ge=1)
    """Examples that such a choice has, all kept in the template."""
    rounds: int = Field(2, ge=1, le=5)
    """Rounds of successive halving; each but the first begins with the best so far, changed and crossed."""
    keep: int = Field(4, ge=1)
    """How many of a round are changed and crossed in the next."""
    seed: int = 0
    """Of the cases, the examples and the changes."""
