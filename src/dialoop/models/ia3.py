"""IA3 (Liu et al. 2022): keys, values and the inputs of the feed-forward's end are scaled."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dialoop.config import IA3Method
from dialoop.models.wrapped import WrappedModel, wrap
from dialoop.types import ModelRef


@dataclass(frozen=True)
class IA3:
    """The method `ia3`: the base is frozen, a vector of factors is learnt for each target, at first all 1."""

    settings: IA3Method

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> WrappedModel:
        from peft import IA3Config

        targets, feedforward = list(self.settings.targets), list(self.settings.feedforward)
        config = IA3Config(
            target_modules=sorted({*targets, *feedforward}) or None,
            feedforward_modules=feedforward if targets or feedforward else None,
        )
        return wrap(
            model, config, base, seed=seed, what=f"method.targets {self.settings.targets!r}",
            mend="name linear layers of the model in method.targets, and method.feedforward if any",
        )  # fmt: skip
