"""What a run minimises. An objective is called with a batch, and tells what it measured beside its loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as dense_cross_entropy

from dialoop.config import RegularisationSettings
from dialoop.models.packed import PackedBody, plain_head
from dialoop.train.batch import Batch
from dialoop.train.loss import told_cross_entropy
from dialoop.train.world import world

ACCURACY = "mean_token_accuracy"
"""Share of the learnt tokens that the model holds for the likeliest: OpenAI's name."""


class Loss(Protocol):
    """Summed loss of a batch, to be divided by its worth; held back while the model is in training mode."""

    model: nn.Module
    body: PackedBody
    tally: Tally

    def __call__(self, batch: Batch) -> Tensor: ...


class Tally:
    """Means over the batches since they were last taken, those of every process that has joined."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        self._deaf = False

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """While it lasts, nothing is added."""
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False

    def add(self, name: str, total: float | Tensor, count: float) -> None:
        """`count` values whose sum is `total`."""
        if self._deaf:
            return
        before, among = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (before + float(total), among + count)

    def taken(self) -> Mapping[str, float]:
        """The means by name, which are forgotten; to be taken by all processes together."""
        parts, self._sums = world().each(self._sums), {}
        for part in parts:
            for name, (total, count) in part.items():
                self.add(name, total, count)
        sums, self._sums = self._sums, {}
        return {name: total / count for name, (total, count) in sums.items() if count}


class Objective:
    """Token losses of a batch under a causal language model: imitation."""

    def __init__(self, model: nn.Module, held_back: RegularisationSettings) -> None:
        self.model, self.held_back = model, held_back
        self.body = PackedBody(model)
        self.body.noise = held_back.neftune
        self.plain = plain_head(model)
        self.tally = Tally()

    def __call__(self, batch: Batch) -> Tensor:
        ids, targets, weights = tensors(batch, self.body.device)
        smoothing = self.held_back.label_smoothing if self.model.training else 0.0
        twice = self.held_back.r_drop > 0 and self.model.training
        hidden = self.body.hidden(ids, batch.lengths)
        rows = weights.nonzero().squeeze(1)
        if self.plain and not twice:
            loss, right = told_cross_entropy(hidden, self.body.head, targets, weights, smoothing)
            self.tally.add(ACCURACY, right, len(rows))
            return loss
        passes = [hidden, self.body.hidden(ids, batch.lengths)] if twice else [hidden]
        logits = [self.body.logits(each[rows]).float() for each in passes]
        self.tally.add(ACCURACY, (logits[0].argmax(-1) == targets[rows]).sum(), len(rows))
        losses = torch.stack([
            dense_cross_entropy(each, targets[rows], reduction="none", label_smoothing=smoothing)
            for each in logits
        ]).mean(0)  # fmt: skip
        if twice:
            losses = losses + self.held_back.r_drop * divergence(*logits)
        return losses.mul(weights[rows]).sum()


def tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, targets and weights of a batch, (T,) each."""
    ids, targets, weights = (
        torch.from_numpy(a).to(device) for a in (batch.token_ids, batch.targets, batch.weights)
    )
    return ids, targets, weights


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """(N,): half of the two Kullback-Leibler divergences together. first, second: (N, V) logits."""
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(-1)
