"""Drawing the next token."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from dialoop.types import Sampling


def generator(sampling: Sampling, index: int) -> random.Random:
    """The source of chance of answer `index`: the same for the same seed, whatever else runs."""
    return random.Random() if sampling.seed is None else random.Random(f"{sampling.seed}/{index}")


def choose(
    logits: torch.Tensor, samplings: Sequence[Sampling], chances: Sequence[random.Random]
) -> list[int]:
    """One token a row. logits: (B, V); each row is drawn on its own, so its neighbours change nothing."""
    chosen: list[int] = logits.argmax(dim=-1).tolist()
    drawn = [i for i, sampling in enumerate(samplings) if sampling.temperature > 0]
    if drawn:
        probabilities = tempered(logits[drawn], [samplings[i].temperature for i in drawn])
        for row, i in zip(probabilities, drawn, strict=True):
            chosen[i] = draw(row, samplings[i].top_p, chances[i].random())
    return chosen


def tempered(logits: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """softmax(logits / temperature), (B, V) float64; the maximum goes first: no overflow at 1e-300."""
    scaled = logits.double()
    scaled = scaled - scaled.amax(dim=-1, keepdim=True)
    divisor = torch.tensor(temperatures, dtype=torch.float64, device=logits.device)
    return torch.softmax(scaled / divisor[:, None], dim=-1)


def draw(probabilities: torch.Tensor, top_p: float, chance: float) -> int:
    """The token at `chance` (in [0, 1)) of the cumulative distribution, (V,), of the nucleus.

    Nucleus: the fewest most probable tokens that together hold top_p, at least one.
    Holtzman et al. 2020, arXiv:1904.09751.
    """
    if top_p >= 1:
        return _invert(probabilities, chance)
    ordered, tokens = probabilities.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    size = max(1, int((before < top_p).sum()))
    return int(tokens[_invert(ordered[:size], chance)])


def _invert(weights: torch.Tensor, chance: float) -> int:
    """The first position whose cumulative weight exceeds `chance` of the total; never one of no weight."""
    cumulative = weights.cumsum(-1)
    position = int(torch.searchsorted(cumulative, chance * cumulative[-1], right=True))
    return min(position, int(weights.nonzero()[-1]))
