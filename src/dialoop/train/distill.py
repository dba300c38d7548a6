"""Learning what a teacher holds for probable, at each learnt token (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import DistillObjective
from dialoop.errors import TrainError
from dialoop.models.load import load_model
from dialoop.models.packed import PackedBody
from dialoop.train.batch import Batch
from dialoop.train.loss import in_pieces
from dialoop.train.objective import ACCURACY, Tally, tensors
from dialoop.types import ModelRef

ROWS = 256
"""Positions at which both models' logits are in memory."""


class DistillLoss:
    """alpha · cross-entropy + (1 - alpha) · temperature² · KL(teacher || model), over the learnt tokens.

    teacher: reads the same tokens, so its vocabulary is the model's; of heads of other widths, as padding
    makes them, the entries that both have count.
    """

    def __init__(
        self, model: nn.Module, teacher: nn.Module, settings: DistillObjective, noise: float = 0.0
    ) -> None:
        self.model, self.settings = model, settings
        self.body, self.teacher = PackedBody(model), PackedBody(teacher)
        self.body.noise = noise
        self.tally = Tally()

    def __call__(self, batch: Batch) -> Tensor:
        ids, targets, weights = tensors(batch, self.body.device)
        rows = weights.nonzero().squeeze(1)
        with torch.no_grad():
            taught = self.teacher.hidden(ids, batch.lengths)[rows]
        hidden = self.body.hidden(ids, batch.lengths)[rows]
        told = in_pieces(self._piece, hidden, taught, targets[rows], size=ROWS)
        losses, divergences, right = told.unbind(1)
        self.tally.add(ACCURACY, right.detach().sum(), len(rows))
        self.tally.add("divergence", divergences.detach().sum(), len(rows))
        return losses.mul(weights[rows]).sum()

    def _piece(self, hidden: Tensor, taught: Tensor, targets: Tensor) -> Tensor:
        """(n, 3): loss, divergence, and whether the target is the likeliest."""
        logits = self.body.logits(hidden).float()
        with torch.no_grad():
            wanted = self.teacher.logits(taught).float()
        kl = divergence(wanted, logits, self.settings.temperature)
        plain = cross_entropy(logits, targets, reduction="none")
        alpha = self.settings.alpha
        losses = alpha * plain + (1 - alpha) * self.settings.temperature**2 * kl
        return torch.stack([losses, kl, (logits.argmax(-1) == targets).float()], dim=1)


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """(n,) KL(teacher || student) of (n, V) logits softened by `temperature`, over the entries of both."""
    width = min(teacher.shape[1], student.shape[1])
    p, q = ((each[:, :width] / temperature).log_softmax(-1) for each in (teacher, student))
    return (p.exp() * (p - q)).sum(-1)


def load_teacher(teacher: ModelRef, tokenizer: ChatTokenizer) -> nn.Module:
    """A frozen model. Raises TrainError where its tokens are not those of `tokenizer`."""
    theirs = ChatTokenizer.load(teacher.base)
    mine, other = (each.pieces(range(each.vocab_size)) for each in (tokenizer, theirs))
    if mine != other:
        place = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), None)
        where = "" if place is None else f", and differ first at token {place}"
        raise TrainError(
            f"objective.teacher {teacher.name} has another vocabulary than the model ({len(other)} and "
            f"{len(mine)} tokens{where}): distil from a model of the same family, or train on its answers"
        )
    return load_model(teacher, merge=True).requires_grad_(False)
