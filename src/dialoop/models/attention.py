"""Causal attention over packed documents, written as block matrix products.

On CPUs torch's flash kernel reaches a tenth of what its batched matrix products reach (bench/train.py);
these products are used instead, in blocks of queries so that about half of the scores above the
diagonal are never computed. On other devices torch's own kernel is called for each document.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

QUERY_BLOCK = 256


class _BlockAttention(torch.autograd.Function):
    """Softmax(q kᵀ · scale + causal mask) v; q, k, v: (N, T, D), N = sequences x heads."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        out = torch.empty_like(q)
        weights: list[Tensor] = []
        for start, stop in _blocks(q.shape[1]):
            mask = _mask(start, stop, q)
            scores = torch.baddbmm(mask, q[:, start:stop], k[:, :stop].transpose(1, 2), alpha=scale)
            block = torch.softmax(scores, -1)
            out[:, start:stop] = torch.bmm(block, v[:, :stop])
            weights.append(block)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *weights = ctx.saved_tensors
        grad = grad.contiguous()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (start, stop), block in zip(_blocks(q.shape[1]), weights, strict=True):
            part = grad[:, start:stop]
            dv[:, :stop] += torch.bmm(block.transpose(1, 2), part)
            dweights = torch.bmm(part, v[:, :stop].transpose(1, 2))
            dscores = torch._softmax_backward_data(dweights, block, -1, block.dtype)
            dq[:, start:stop] = torch.bmm(dscores, k[:, :stop])
            dk[:, :stop] += torch.bmm(dscores.transpose(1, 2), q[:, start:stop])
        return dq.mul_(ctx.scale), dk.mul_(ctx.scale), dv, None


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + QUERY_BLOCK, length)) for start in range(0, length, QUERY_BLOCK)]


def _mask(start: int, stop: int, like: Tensor) -> Tensor:
    """(stop - start, stop): 0 where query `start + i` may see key `j`, -inf where it may not."""
    mask = torch.full((stop - start, stop), float("-inf"), dtype=like.dtype, device=like.device)
    return mask.triu_(start + 1)


def packed_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
    """Causal attention inside each document of a packed row.

    q: (T, H, D); k, v: (T, H_kv, D), H a multiple of H_kv; lengths: of the documents, summing to T.
    Returns (T, H, D).
    """
    heads, repeats = q.shape[1], q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    parts, start = [], 0
    for length, run in groupby(lengths):
        count = len(list(run))
        stop = start + count * length
        rows = (_by_head(x[start:stop], count, length) for x in (q, k, v))
        parts.append(_attend(*rows, scale=scale).view(count, heads, length, -1).transpose(1, 2).flatten(0, 1))
        start = stop
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _by_head(x: Tensor, count: int, length: int) -> Tensor:
    """(count * length, H, D) -> (count * H, length, D)."""
    return x.view(count, length, x.shape[1], -1).transpose(1, 2).reshape(count * x.shape[1], length, -1)


def _attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    if q.device.type == "cpu":
        return _BlockAttention.apply(q, k, v, scale)  # type: ignore[no-any-return, no-untyped-call]
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
