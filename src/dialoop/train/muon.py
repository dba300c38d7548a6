"""Muon (Jordan et al. 2024), scaled to AdamW's step size (Liu et al. 2025, arXiv:2502.16982)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from dialoop.models.load import default_dtype

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
TINY = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum, its matrix made orthogonal. torch's own does that in bf16 whatever the machine has.

    Where bf16 is emulated (a tenth of fp32's speed) the products are fp32; matrices of one shape go through
    them together. params: (rows, columns) each.
    """

    def __init__(self, params: Iterable[Parameter], weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                moves = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in parameters]))
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(move, alpha=-rate)

    def _momentum(self, parameter: Parameter, share: float) -> Tensor:
        """Nesterov's: the gradient moved towards its running mean."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean: Tensor = state["momentum_buffer"]
        mean.lerp_(gradient, 1 - share)
        return gradient.lerp(mean, share)


def orthogonal(matrices: Tensor) -> Tensor:
    """(N, rows, columns): singular values brought near 1 by Newton-Schulz iterations, vectors kept."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(default_dtype(matrices.device.type))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(TINY)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
