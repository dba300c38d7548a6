"""Learning from pairs of answers: DPO and IPO against a reference, ORPO and SimPO without one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dialoop.config import DpoObjective, OrpoObjective, PreferenceObjective, SimpoObjective
from dialoop.models.packed import PackedBody, fill
from dialoop.train.batch import Batch
from dialoop.train.checkpoint import Checkpoint, latest, save
from dialoop.train.loss import token_logprobs
from dialoop.train.objective import Tally, tensors
from dialoop.train.pairs import PairBatch, PairRows, pack_pairs
from dialoop.train.world import world

LARGEST_MEAN = -1e-6
"""A mean log-probability above it has no finite odds in fp32."""


class PreferenceLoss:
    """Losses of a batch of pairs under a causal language model.

    Measured beside it: the share of pairs whose chosen answer has the higher reward, and by how much it is.
    """

    def __init__(self, model: nn.Module, settings: PreferenceObjective, noise: float = 0.0) -> None:
        self.model, self.settings = model, settings
        self.body = PackedBody(model)
        self.body.noise = noise
        self.tally = Tally()

    def __call__(self, batch: Batch) -> Tensor:
        assert isinstance(batch, PairBatch)
        logs, lengths = answer_logprobs(self.body, batch)
        reference = torch.from_numpy(batch.reference).to(logs).view(-1, 2)
        losses, rewards = pair_losses(self.settings, logs, lengths, reference)
        margins = (rewards[:, 0] - rewards[:, 1]).detach()
        self.tally.add("preference_accuracy", (margins > 0).sum(), len(margins))
        self.tally.add("reward_margin", margins.sum(), len(margins))
        return losses.sum()


def answer_logprobs(body: PackedBody, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """(pairs, 2) each: log-probabilities of the answers, chosen first, and the tokens of these."""
    ids, targets, weights = tensors(batch, body.device)
    rows = weights.nonzero().squeeze(1)
    logs = token_logprobs(body.logits, body.hidden(ids, batch.lengths)[rows], targets[rows])
    learnt = weights.split(list(batch.lengths))  # type: ignore[no-untyped-call]
    counts = [int(each.count_nonzero()) for each in learnt]
    sums = torch.stack([each.sum() for each in logs.split(counts)])  # type: ignore[no-untyped-call]
    return sums.view(-1, 2), torch.tensor(counts, device=sums.device).view(-1, 2)


def pair_losses(
    settings: PreferenceObjective, logs: Tensor, lengths: Tensor, reference: Tensor
) -> tuple[Tensor, Tensor]:
    """(n,) losses and (n, 2) rewards of pairs.

    logs, reference: (n, 2) summed log-probabilities, chosen first; the second is read by `dpo` alone.
    lengths: (n, 2) tokens of the answers.
    """
    match settings:
        case DpoObjective():
            ratios = logs - reference
            loss = _dpo(settings, ratios / lengths if settings.loss == "ipo" else ratios)
            return loss, settings.beta * ratios
        case OrpoObjective():
            means = (logs / lengths).clamp(max=LARGEST_MEAN)
            odds = means - torch.log(-torch.expm1(means))
            return -means[:, 0] - settings.weight * logsigmoid(_margin(odds)), settings.weight * means
        case SimpoObjective():
            rewards = settings.beta * logs / lengths
            return -logsigmoid(_margin(rewards) - settings.gamma), rewards


def _dpo(settings: DpoObjective, ratios: Tensor) -> Tensor:
    margin = _margin(ratios)
    if settings.loss == "ipo":
        return (margin - 1 / (2 * settings.beta)).square()
    share = settings.label_smoothing
    return -(1 - share) * logsigmoid(settings.beta * margin) - share * logsigmoid(-settings.beta * margin)


def _margin(sides: Tensor) -> Tensor:
    """(n, 2) -> (n,): of the chosen over the rejected."""
    return sides[:, 0] - sides[:, 1]


def referenced(
    body: PackedBody, sets: Sequence[PairRows], folder: Path, batch_tokens: int, *, opened: bool = False
) -> tuple[PairRows, ...]:
    """Sets of rows with their references: under the model as it is before its first update.

    Computed once and kept in `folder`, the run's own, so that a resumed run and all processes hold to the
    same.  opened: a soft prompt before the texts is a part of that model, not of what is learnt anew.
    """
    here = world()
    found = latest(folder) if here.leads else None
    if here.leads and found is None:
        made = {str(i): _reference(body, rows, batch_tokens, opened) for i, rows in enumerate(sets)}
        save(folder, found := Checkpoint(0, made, {}))
    here.wait()
    found = found or latest(folder)
    assert found is not None
    return tuple(_with_reference(rows, found.tensors[str(i)]) for i, rows in enumerate(sets))


def _with_reference(rows: PairRows, reference: Tensor) -> PairRows:
    pairs = zip(rows.rows, reference.tolist(), strict=True)
    return replace(rows, rows=tuple(replace(pair, reference=(a, b)) for pair, (a, b) in pairs))


@torch.no_grad()
def _reference(body: PackedBody, rows: PairRows, batch_tokens: int, opened: bool) -> Tensor:
    """(pairs, 2). Methods begin at the base, but for what they put before every text: that is left out."""
    was_training = body.model.training
    body.model.eval()
    sizes = [pair.size for pair in rows.rows]
    found = torch.zeros(len(sizes), 2)
    with nullcontext() if opened else body.unopened():
        for which in fill(sizes, sorted(range(len(sizes)), key=sizes.__getitem__), batch_tokens):
            found[which] = answer_logprobs(body, pack_pairs([rows.rows[i] for i in which]))[0].float().cpu()
    body.model.train(was_training)
    return found
