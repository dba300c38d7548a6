"""Drawing the next token: many rows at once, each by its own parameters, none changed by its neighbours."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dialoop.engine.constrain import Constraint
from dialoop.engine.penalties import Penalties
from dialoop.types import Sampling


class Drawn(Protocol):
    """What the draws of one row depend on."""

    @property
    def sampling(self) -> Sampling: ...

    @property
    def chance(self) -> random.Random: ...

    @property
    def penalties(self) -> Penalties | None: ...

    @property
    def constraint(self) -> Constraint | None: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """A token; where its log-probability was asked for, that and the best (token, log-probability) pairs."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def generator(sampling: Sampling, index: int) -> random.Random:
    """The source of chance of answer `index`: the same for the same seed, whatever else runs."""
    return random.Random() if sampling.seed is None else random.Random(f"{sampling.seed}/{index}")


def choose(logits: Tensor, rows: Sequence[Drawn]) -> list[Choice]:
    """One token a row. logits: (B, V) float32, left as they are."""
    if logits.device.type == "mps":
        logits = logits.cpu()  # it knows no float64
    scores = _penalised(logits, rows)
    tokens = scores.argmax(-1)
    drawn = [i for i, row in enumerate(rows) if row.sampling.temperature > 0]
    drawn_from: dict[int, Tensor] = {}
    if drawn:
        probabilities = distribution(scores[drawn], [rows[i].sampling for i in drawn])
        chances = torch.tensor([rows[i].chance.random() for i in drawn], dtype=torch.float64)
        tokens[drawn] = invert(probabilities, chances.to(logits.device))
        drawn_from = dict(zip(drawn, probabilities, strict=True))
    chosen = [Choice(token) for token in tokens.tolist()]
    for i, row in enumerate(rows):
        if row.sampling.logprobs is not None or row.sampling.made > row.sampling.n:
            logs = _logs(row.sampling, logits[i], scores[i], drawn_from.get(i))
            chosen[i] = _told(chosen[i].token, logs, row.sampling.logprobs or 0)
    return chosen


def _penalised(logits: Tensor, rows: Sequence[Drawn]) -> Tensor:
    """The logits after bias, penalties and grammar: a copy where a row has any."""
    changes = [
        (i, change) for i, row in enumerate(rows) for change in (row.penalties, row.constraint) if change
    ]
    if not changes:
        return logits
    scores = logits.clone()
    for i, change in changes:
        change.apply(scores[i])
    return scores


def _logs(sampling: Sampling, logits: Tensor, scores: Tensor, drawn_from: Tensor | None) -> Tensor:
    """(V,) log-probabilities: the model's own, or processed ones; at temperature 0 those of the scores."""
    if not sampling.processed_logprobs:
        return logits.log_softmax(-1)
    return scores.log_softmax(-1) if drawn_from is None else drawn_from.log()


def _told(token: int, logs: Tensor, count: int) -> Choice:
    best = logs.topk(min(count, len(logs)))
    pairs = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return Choice(token, float(logs[token]), pairs)


def distribution(scores: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """What each row is drawn from, (B, V) float64, summing to 1. scores: (B, V); temperatures above 0."""
    probabilities = tempered(scores, [sampling.temperature for sampling in samplings])
    for wanted, keep in _FILTERS:
        rows = [i for i, sampling in enumerate(samplings) if wanted(sampling)]
        if rows:
            part = probabilities[rows]
            kept = torch.where(keep(part, [samplings[i] for i in rows]), part, 0.0)
            probabilities[rows] = kept / kept.sum(-1, keepdim=True)
    return probabilities


def tempered(logits: Tensor, temperatures: Sequence[float]) -> Tensor:
    """softmax(logits / temperature), (B, V) float64; the maximum goes first: no overflow at 1e-300."""
    scaled = logits.double()
    scaled = scaled - scaled.amax(dim=-1, keepdim=True)
    return torch.softmax(scaled / _column(temperatures, logits), dim=-1)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """(B, 1) float64 on the device of `like`."""
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]


Filter = Callable[[Tensor, Sequence[Sampling]], Tensor]
"""Probabilities (B, V) and their rows' parameters -> which tokens stay, (B, V) bool, one a row at least."""


def _top_k(probabilities: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """The k most probable, and those as probable as the last of them."""
    sizes = [min(sampling.top_k, probabilities.shape[-1]) for sampling in samplings]
    best = probabilities.topk(max(sizes)).values
    last = best.gather(-1, torch.tensor(sizes, device=best.device)[:, None] - 1)
    return probabilities >= last


def _top_p(probabilities: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """The fewest most probable tokens that together hold top_p, at least one."""
    return _fewest(-probabilities, probabilities, [sampling.top_p for sampling in samplings])


def _min_p(probabilities: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Those at least min_p times as probable as the best."""
    floor = probabilities.amax(-1, keepdim=True) * _column([s.min_p for s in samplings], probabilities)
    return probabilities >= floor


def _typical_p(probabilities: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """The fewest tokens whose surprise is nearest to the entropy and that together hold typical_p."""
    surprise = -probabilities.log()
    entropy = torch.special.entr(probabilities).sum(-1, keepdim=True)
    return _fewest((surprise - entropy).abs(), probabilities, [s.typical_p for s in samplings])


def _fewest(rank: Tensor, probabilities: Tensor, masses: Sequence[float]) -> Tensor:
    """The first tokens by `rank`, (B, V) lowest first, that together hold each row's mass; at least one."""
    order = rank.argsort(dim=-1, stable=True)
    ordered = probabilities.gather(-1, order)
    before = ordered.cumsum(-1) - ordered
    keep = before < _column(masses, probabilities)
    keep[:, 0] = True
    return torch.zeros_like(keep).scatter_(-1, order, keep)


_FILTERS: tuple[tuple[Callable[[Sampling], bool], Filter], ...] = (
    (lambda sampling: sampling.top_k > 0, _top_k),
    (lambda sampling: sampling.top_p < 1, _top_p),
    (lambda sampling: sampling.min_p > 0, _min_p),
    (lambda sampling: sampling.typical_p < 1, _typical_p),
)


def invert(probabilities: Tensor, chances: Tensor) -> Tensor:
    """The tokens (B,) at `chances` (B,), in [0, 1), of the cumulative distributions (B, V).

    In the order of the vocabulary; never a token of no probability.
    """
    cumulative = probabilities.cumsum(-1)
    wanted = chances[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, wanted, right=True).squeeze(-1)
    last = probabilities.shape[-1] - 1 - (probabilities > 0).flip(-1).int().argmax(-1)
    return torch.minimum(tokens, last)
