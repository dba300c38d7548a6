"""What the output matrix makes of hidden states at supervised positions, in pieces that stay in cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

ROWS = 512
"""Positions whose logits are held at a time."""
LEAST_ROWS, LOGITS = 64, 3 * 2**23
"""Fewer where the vocabulary is large: a piece has so many logits at most, and so many positions at least."""
CUDA_ROWS = 8192
"""As many there: what a piece costs is its calls."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are made with the loss, so the logits are never kept and never computed twice."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        total, right = (torch.zeros((), dtype=torch.float32, device=hidden.device) for _ in range(2))
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        dhidden = torch.empty_like(hidden) if wants_hidden else None
        dhead = torch.zeros_like(head, dtype=torch.float32) if wants_head else None
        size = CUDA_ROWS if hidden.is_cuda else min(ROWS, max(LEAST_ROWS, LOGITS // len(head)))
        for start in range(0, len(targets), size):
            rows = slice(start, start + size)
            loss, hits, dlogits = _piece(hidden[rows], head, targets[rows], weights[rows], smoothing)
            total, right = total + loss, right + hits
            worth = weights[rows, None].to(hidden.dtype)
            if dhidden is not None:
                dhidden[rows] = (dlogits @ head).mul_(worth)
            if dhead is not None:
                dhead += dlogits.t() @ (hidden[rows] * worth)
        ctx.save_for_backward(dhidden, None if dhead is None else dhead.to(head.dtype))
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        dhidden, dhead = ctx.saved_tensors
        scaled = [None if d is None else d.mul_(grad.to(d.dtype)) for d in (dhidden, dhead)]
        return scaled[0], scaled[1], None, None, None


def _piece(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted loss, tokens that were the likeliest, the gradient by the logits, weights not counted.

    Probabilities are as wide as hidden, and take the place of the logits. What the other tokens have is
    summed, so that the gradient of a token that is almost certain is not what rounding leaves of 1 - 1.
    Neither scatter nor a sum in another type: on a CPU both copy all bf16 logits.
    """
    logits = hidden @ head.t()
    own = torch.arange(len(targets), device=targets.device), targets
    wide = torch.promote_types(logits.dtype, torch.float32)
    right = (logits[own] >= logits.amax(-1)).sum()
    spread = logits.mean(-1, dtype=wide) - logits[own] if smoothing else None
    dlogits = torch.softmax(logits, -1, out=logits)
    picked = dlogits[own].to(wide)
    dlogits[own] = 0
    others = dlogits.sum(-1).to(wide)  # added up in float32, and told in bf16 as the logits are
    logs = torch.where(others < 0.5, (-others).log1p(), picked.clamp_min(1e-30).log())
    dlogits[own] = (smoothing - others).to(dlogits.dtype)
    if spread is not None:
        logs = (1 - smoothing) * logs + smoothing * (spread + logs)
        dlogits -= smoothing / dlogits.shape[1]
    return -(logs * weights).sum(), right, dlogits


def cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Sum over positions of weight x -log softmax(hidden headᵀ)[target], fp32.

    hidden: (T, D); head: (V, D); targets: (T,) int64; weights: (T,) fp32. Positions of weight 0 cost nothing.
    smoothing: share of each target that is spread over the vocabulary.
    """
    return told_cross_entropy(hidden, head, targets, weights, smoothing)[0]


def told_cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """`cross_entropy`, and how many of the targets with a weight are the likeliest token."""
    rows = weights.nonzero().squeeze(1)
    if len(rows) < len(weights):
        hidden, targets, weights = hidden[rows], targets[rows], weights[rows]
    return _LinearCrossEntropy.apply(hidden, head, targets, weights, smoothing)  # type: ignore[no-any-return, no-untyped-call]


def in_pieces(work: Callable[..., Tensor], *rows: Tensor, size: int = ROWS) -> Tensor:
    """`work` over `size` rows of all the tensors at a time, its answers one after the other.

    What a piece computes on the way, such as logits, is not kept: it is computed again for the gradient.
    """
    pieces = zip(*(each.split(size) for each in rows), strict=True)  # type: ignore[no-untyped-call]
    return torch.cat([checkpoint(work, *piece, use_reentrant=False) for piece in pieces])


def token_logprobs(logits: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    """(N,) log-probabilities of the targets, fp32. hidden: (N, D); logits: (n, D) -> (n, V), of any head."""

    def piece(hidden: Tensor, targets: Tensor) -> Tensor:
        return -functional.cross_entropy(logits(hidden).float(), targets, reduction="none")

    return in_pieces(piece, hidden, targets)
