"""How the rows of several sources are mixed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dialoop.config.settings import Settings


class MixSettings(Settings):
    """What an epoch takes of each source, and in which order; a pure function of the seed and the epoch."""

    weights: dict[str, float] = Field({})
    """Source = how often its rows come in an epoch: 2 = twice, 0.25 = another quarter of them each epoch
    until all have come; 1 where a source is not named."""
    replay: tuple[str, ...] = ()
    """Sources of general data that is shown again, lest it be forgotten; never validated or tested on."""
    replay_share: float = Field(0.1, gt=0, lt=1)
    """Share of an epoch's rows that come from `replay`, where there is any."""
    curriculum: Literal["none", "length"] = "none"
    """`length`: short rows before long ones (Bengio et al. 2009), by tokens."""
    curriculum_epochs: int = Field(1, ge=1)
    """So many epochs are sorted; the others come in any order."""

    @model_validator(mode="after")
    def _weights_are_positive(self) -> MixSettings:
        for name, weight in self.weights.items():
            if not 0 < weight < float("inf"):
                raise ValueError(
                    f"weights.{name} is {weight:g}: give a number above 0, or leave the source out"
                )
        return self

    @property
    def is_plain(self) -> bool:
        """Whether every row comes once an epoch, whatever its source."""
        return not self.weights and not self.replay
