"""Objectives: what of its rows a model is to learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dialoop.config.settings import Settings


class SftObjective(Settings):
    """Imitate the answers: cross-entropy of the tokens that `train.mask` chooses."""

    kind: Literal["sft"] = "sft"
    """Names the objective."""


class DpoObjective(Settings):
    """Prefer one answer to the other, more than the model did before it was tuned (Rafailov et al. 2023,
    arXiv:2305.18290)."""

    kind: Literal["dpo"] = "dpo"
    """Names the objective."""
    beta: float = Field(0.1, gt=0)
    """How dear it is to leave the model as it was: the higher, the less it changes."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """`sigmoid`: as in the paper; `ipo`: a square loss, which a margin can overshoot, on means over the
    tokens (Azar et al. 2023, arXiv:2310.12036)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of the pairs whose preference is taken to be the wrong way round; with `sigmoid` alone."""

    @model_validator(mode="after")
    def _smoothed_where_it_can_be(self) -> DpoObjective:
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError('label_smoothing is of loss = "sigmoid": leave it out, or take that')
        return self


class OrpoObjective(Settings):
    """Imitate the chosen answer and raise its odds over the other's, without a reference (Hong et al. 2024,
    arXiv:2403.07691)."""

    kind: Literal["orpo"] = "orpo"
    """Names the objective."""
    weight: float = Field(0.1, gt=0)
    """Of the odds ratio beside the cross-entropy: the paper's lambda."""


class SimpoObjective(Settings):
    """Prefer one answer to the other by a margin of their mean log-probabilities, without a reference (Meng
    et al. 2024, arXiv:2405.14734)."""

    kind: Literal["simpo"] = "simpo"
    """Names the objective."""
    beta: float = Field(2.0, gt=0)
    """Scale of the means."""
    gamma: float = Field(1.0, ge=0)
    """The margin that is wanted; half of beta in the paper's best runs."""


class DistillObjective(Settings):
    """Imitate the answers and, at each of their tokens, what a teacher holds for probable (Hinton et al.
    2015, arXiv:1503.02531)."""

    kind: Literal["distill"] = "distill"
    """Names the objective."""
    teacher: str
    """A registered model, or the path of a Hugging Face directory, with the same vocabulary."""
    temperature: float = Field(2.0, gt=0)
    """Both distributions are softened by this; the divergence is multiplied by its square."""
    alpha: float = Field(0.5, ge=0, le=1)
    """Share of the cross-entropy; the rest is KL(teacher || model)."""


PreferenceObjective = DpoObjective | OrpoObjective | SimpoObjective
"""Objectives that learn from pairs of answers to one history: the answers whole, whatever the mask."""
ObjectiveSettings = Annotated[
    SftObjective | PreferenceObjective | DistillObjective, Field(discriminator="kind")
]
