"""What recipes of several kinds have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from dialoop.config.settings import Settings

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class MadeFromAnother(Settings):
    """Of a recipe that makes a model from another by a tuning method."""

    usual_method: ClassVar[str]
    """The kind of a `[method]` table that names none."""

    name: ModelName
    """The new model's name; each run registers the next version."""

    @field_validator("method", mode="before", check_fields=False)
    @classmethod
    def _of_a_kind(cls, method: Any) -> Any:
        return {"kind": cls.usual_method, **method} if isinstance(method, dict) else method


class LoopSettings(Settings):
    """When a run looks, saves and stops."""

    eval_every: int = Field(0, ge=0)
    """Updates between validations; 0 = once an epoch."""
    patience: int = Field(3, ge=0)
    """Stop after this many validations without a better loss; 0 = never."""
    checkpoint_every: int = Field(50, ge=1)
    """Updates between checkpoints."""
    seed: int = 0
    """Order of the rows, and the first values of new weights."""


class HoldingBack(Settings):
    """What keeps a model from learning its rows by heart; validation is without any of it."""

    r_drop: float = Field(0.0, ge=0)
    """Weight of the divergence of two passes with different dropout (Liang et al. 2021, arXiv:2106.14448).
    Twice the time; it needs a dropout, of the method or of the model."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of a running mean of the weights, which is judged and written in their place; 0 = none."""
