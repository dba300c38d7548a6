"""The policy of a gate: what a new model must keep, gain and stay within before it is released."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dialoop.config.settings import Settings

MAIN_SET = "test"


class _Rule(Settings):
    set: str = MAIN_SET
    """The set of test dialogues; `test` is the report's own, the others are those that it retains."""
    metric: str
    """As the report names it, such as `BLEU`, `ROUGE-L` or `perplexity`."""
    language: str | None = None
    """One language's row, or `all`; None asks it of every language of the set."""


class KeepRule(_Rule):
    """A metric that must not get worse."""

    by: float = Field(0.0, ge=0)
    """It may get worse by less than this, in the metric's own points, with 95 % confidence."""


class GainRule(_Rule):
    """A metric that must get better."""

    by: float = Field(0.0, ge=0)
    """By more than this, in the metric's own points, with 95 % confidence."""


class CostRule(Settings):
    """What an answer may cost."""

    median_seconds: float | None = Field(None, gt=0)
    """Of an answer given alone."""
    p95_seconds: float | None = Field(None, gt=0)
    """All but one in twenty answers take no longer."""
    times_slower: float | None = Field(None, gt=0)
    """The median over that of the model before."""
    memory_mb: float | None = Field(None, gt=0)
    """Of the model's weights, in millions of bytes."""


class GatePolicy(Settings):
    """When a new model may take the place of the old one."""

    kind: Literal["gate"] = "gate"
    """Names the file's purpose."""
    sets: dict[str, tuple[str, ...]] = Field({})
    """Sources of each set, for a gate that asks the models itself; `test` is the main one."""
    must_not_fall: tuple[KeepRule, ...] = ()
    """What must be kept."""
    must_gain: tuple[GainRule, ...] = ()
    """What must be gained."""
    cost: CostRule = CostRule()
    """What it may cost."""
    max_leaked: float | None = Field(None, ge=0, le=1)
    """Share of test dialogues that may repeat training dialogues; where unknown, the gate stays shut."""

    @model_validator(mode="after")
    def _asks_something(self) -> GatePolicy:
        if not (self.must_not_fall or self.must_gain):
            raise ValueError("a policy needs a rule: add [[must_not_fall]] or [[must_gain]]")
        return self
