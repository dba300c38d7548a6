"""What heads learn: the class of a row, which answer fits, the tags of words."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dialoop.config.heads import HeadRegularisationSettings
from dialoop.models.crf import Crf
from dialoop.models.heads import Headed, class_logits
from dialoop.train.batch import Batch
from dialoop.train.objective import Tally, divergence, tensors

Picked = tuple[Tensor, Tensor, Tensor]
"""Logits where something is learnt, what, and what that is worth."""


ACCURACY = "accuracy"
"""Share of rows, words or groups whose likeliest answer is the right one."""


class HeadObjective:
    """The weighted sum of a batch's losses; held back while the model is in training mode.

    Measured beside it: the accuracy, of whole sequences of tags in validation only.
    """

    def __init__(self, headed: Headed, held_back: HeadRegularisationSettings) -> None:
        self.headed, self.held_back = headed, held_back
        self.tally = Tally()

    def __call__(self, batch: Batch) -> Tensor:
        twice = self.held_back.r_drop > 0 and self.headed.whole.training
        passes = [self._picked(batch) for _ in range(2 if twice else 1)]
        losses = torch.stack([self._losses(*picked) for picked in passes]).mean(0)
        (logits, targets, weights), *again = passes
        counted = weights > 0
        self.tally.add(ACCURACY, (self._right(logits, targets) & counted).sum(), int(counted.sum()))
        for other, _, _ in again:
            both = class_logits(logits), class_logits(other)
            losses = losses + self.held_back.r_drop * divergence(*both)
        return losses.mul(weights).sum()

    @property
    def smoothing(self) -> float:
        """Of the targets, in training only."""
        return self.held_back.label_smoothing if self.headed.whole.training else 0.0

    def _picked(self, batch: Batch) -> Picked:
        ids, targets, weights = tensors(batch, self.headed.device)
        logits = self.headed.logits(ids, batch.lengths)
        places = weights.nonzero().squeeze(1)
        if self.headed.kind == "sequence":
            places = torch.tensor(batch.lengths, device=ids.device).cumsum(0) - 1
            return logits, targets[places], weights[places]
        return logits[places], targets[places], weights[places]

    def _losses(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """(N,)."""
        return cross_entropy(logits, targets, reduction="none", label_smoothing=self.smoothing)

    def _right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(N,): where the likeliest is what is learnt."""
        return logits.argmax(-1) == targets


class BinaryObjective(HeadObjective):
    """Whether each answer fits: the binary cross-entropy of a scorer's one number."""

    def _losses(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return super()._losses(class_logits(logits), targets % 2, weights)

    def _right(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super()._right(class_logits(logits), targets % 2)


class RankedObjective(HeadObjective):
    """Which answer of a group fits: the cross-entropy over the group, of weight for its right one."""

    def _losses(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        scores = self._among(logits, targets)
        right = torch.arange(len(scores), device=logits.device)
        return cross_entropy(scores, right, reduction="none")

    def _right(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self._among(logits, targets).argmax(-1) == torch.arange(len(targets), device=logits.device)

    def _among(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(N, N): for each answer the scores of its group, -inf elsewhere."""
        groups = torch.div(targets, 2, rounding_mode="floor")
        together = groups[:, None] == groups
        return logits.squeeze(-1).expand(len(groups), -1).masked_fill(~together, float("-inf"))


class ChainObjective(HeadObjective):
    """The tags of each row together, by a CRF; a row's loss is shared out over its words."""

    def __init__(self, headed: Headed, held_back: HeadRegularisationSettings, crf: Crf) -> None:
        super().__init__(headed, held_back)
        self.crf = crf

    def __call__(self, batch: Batch) -> Tensor:
        logits, targets, _ = self._picked(batch)
        weights = torch.from_numpy(batch.weights)
        words = [int(part.count_nonzero()) for part in weights.split(list(batch.lengths))]  # type: ignore[no-untyped-call]
        kept = [n for n in words if n]
        pad: Callable[..., Tensor] = torch.nn.utils.rnn.pad_sequence
        if not self.headed.whole.training:
            said = chain.from_iterable(self.crf.best(part) for part in logits.split(kept))  # type: ignore[no-untyped-call]
            right = torch.tensor(list(said), device=targets.device) == targets
            self.tally.add(ACCURACY, right.sum(), len(targets))
        emissions = pad(logits.split(kept), batch_first=True)  # type: ignore[no-untyped-call]
        tags = pad(targets.split(kept), batch_first=True)  # type: ignore[no-untyped-call]
        mask = torch.arange(emissions.shape[1]) < torch.tensor(kept)[:, None]
        return self.crf.loss(emissions, tags, mask.to(emissions.device)).sum()
