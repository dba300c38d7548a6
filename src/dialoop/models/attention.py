"""Causal attention over packed documents: by kernels of our own, else as block matrix products.

On CPUs torch's flash kernel reaches a tenth of what its batched matrix products reach (bench/train.py);
without our kernels these products are used, in blocks of queries so that about half of the scores above the
diagonal are never computed. Query heads that share keys stand below each other in one product, so keys are
never repeated. Neighbouring documents of nearly one length are padded to the longest and go together, since
the calls of many short ones cost more than what is computed for nothing. On CUDA one kernel of torch's takes
the whole row in half precision. Else, and with dropout, its dense kernel is called for each run of documents
of one length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dialoop.models.native.training import Training, training

QUERY_BLOCK = 128
CALLS = 2**15
"""Scores of a head that are computed in about the time that the calls of one more run take."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Documents side by side, as long as the longest: tokens, how many documents, how many query heads share
    keys.

    places: of their tokens among count x length, None = they are of one length and fill them.
    """

    tokens: slice
    count: int
    length: int
    group: int
    places: Tensor | None = None

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """First query and the one after the last of each block."""
        return [(at, min(at + QUERY_BLOCK, self.length)) for at in range(0, self.length, QUERY_BLOCK)]

    def rows(self, start: int, stop: int) -> slice:
        """Where the queries of a block stand, those of all heads of a group."""
        return slice(start * self.group, stop * self.group)

    def by_head(self, x: Tensor, heads: int) -> Tensor:
        """(T, H, D) -> (documents x heads of keys, length x group, D), rows in the order (token, head).

        What pads a document stands behind it, where no query of its own looks, and is 0.
        """
        part = x[self.tokens]
        if self.places is not None:
            padded = part.new_zeros(self.count * self.length, *part.shape[1:])
            part = padded.index_copy_(0, self.places, part)
        return self._heads_first(part, heads).reshape(self.count * heads, -1, x.shape[-1])

    def put_back(self, x: Tensor, into: Tensor, heads: int) -> None:
        """The reverse of `by_head`, of this run's part of `into`, (T, H, D)."""
        part = into[self.tokens]
        if self.places is None:
            place = self._heads_first(part, heads)
            place.copy_(x.view(place.shape))
            return
        whole = x.new_empty(self.count * self.length, *part.shape[1:])
        place = self._heads_first(whole, heads)
        place.copy_(x.view(place.shape))
        part.copy_(whole.index_select(0, self.places))

    def _heads_first(self, x: Tensor, heads: int) -> Tensor:
        """(documents, heads of keys, length, group, D). x: (count x length, H, D)."""
        shape = (self.count, self.length, heads, x.shape[1] // heads, x.shape[2])
        return x.view(shape).transpose(1, 2)


class Kept(Protocol):
    """What `attend` keeps for its gradient."""

    def backward(self, grad: Tensor, into: tuple[Tensor, Tensor, Tensor]) -> None:
        """Write the gradients of q, k and v `into` these. grad: of what is seen, as (T, H · D)."""


@dataclass(frozen=True, slots=True)
class _KeptRun:
    """Of a run: queries, keys, values by head, and weights by block."""

    run: _Run
    q: Tensor
    k: Tensor
    v: Tensor
    weights: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class _KeptRuns:
    runs: tuple[_KeptRun, ...]
    heads: int
    scale: float

    def backward(self, grad: Tensor, into: tuple[Tensor, Tensor, Tensor]) -> None:
        grad = grad.view(len(grad), -1, into[0].shape[-1])
        for each in self.runs:
            run, gh = each.run, each.run.by_head(grad, self.heads)
            dqh, dkh, dvh = (torch.empty_like(x) for x in (gh, each.k, each.v))
            # The last block sees every key, so it gives the sums their first values.
            for (start, stop), weights in zip(reversed(run.blocks), reversed(each.weights), strict=True):
                rows, put = run.rows(start, stop), _put if stop == run.length else _add
                part = gh[:, rows]
                put(dvh[:, :stop], weights.transpose(1, 2), part)
                dweights = torch.bmm(part, each.v[:, :stop].transpose(1, 2))
                dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
                torch.bmm(dscores, each.k[:, :stop], out=dqh[:, rows])
                put(dkh[:, :stop], dscores.transpose(1, 2), each.q[:, rows])
            for x, place in zip((dqh.mul_(self.scale), dkh.mul_(self.scale), dvh), into, strict=True):
                run.put_back(x, place, self.heads)


@dataclass(frozen=True, slots=True)
class _KeptSums:
    """Weights are made again from what kernels of our own keep: the logs of the sums of each row."""

    own: Training
    seen: tuple[Tensor, ...]
    lengths: Sequence[int]
    scale: float

    def backward(self, grad: Tensor, into: tuple[Tensor, Tensor, Tensor]) -> None:
        self.own.attend_back(grad.view(self.seen[0].shape), self.seen, self.lengths, self.scale, into)


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float) -> tuple[Tensor, Kept]:
    """`packed_attention` and what its gradient needs; nothing of it is known to autograd."""
    if (own := training(q, k, v)) is not None:
        out, logs = own.attend(q, k, v, lengths, scale)
        return out, _KeptSums(own, (q, k, v, out, logs), lengths, scale)
    heads = k.shape[1]
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    kept, nothing = [], q.new_zeros(())
    for run in _runs(tuple(lengths), q.shape[1] // heads, CALLS):
        qh, kh, vh = (run.by_head(x, heads) for x in (q, k, v))
        found, weights = torch.empty_like(qh), []
        for start, stop in run.blocks:
            rows = run.rows(start, stop)
            keys = kh[:, :stop].transpose(1, 2)
            scores = torch.baddbmm(nothing, qh[:, rows], keys, beta=0, alpha=scale)
            scores[:, :, start:] += _mask(stop - start, run.group, q.dtype, q.device)
            weights.append(torch.softmax(scores, -1))
            torch.bmm(weights[-1], vh[:, :stop], out=found[:, rows])
        run.put_back(found, out, heads)
        kept.append(_KeptRun(run, qh, kh, vh, tuple(weights)))
    return out, _KeptRuns(tuple(kept), heads, scale)


def _put(into: Tensor, a: Tensor, b: Tensor) -> None:
    torch.bmm(a, b, out=into)


def _add(into: Tensor, a: Tensor, b: Tensor) -> None:
    into += torch.bmm(a, b)


@lru_cache(64)
def _mask(size: int, group: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(1, size x group, size): 0 where a query may see a key of its own block, -inf where it may not."""
    whole = torch.full((size, size), float("-inf"), dtype=dtype, device=device)
    return whole.triu_(1).repeat_interleave(group, 0)[None]


@lru_cache(64)
def _runs(lengths: tuple[int, ...], group: int, padding: int) -> list[_Run]:
    """The same for every layer. padding: scores that may be added to save a run, 0 = equal lengths alone."""
    runs, start = [], 0
    for some in _alike(lengths, padding):
        longest, tokens = max(some), slice(start, start + sum(some))
        places = None
        if len(set(some)) > 1:
            places = torch.cat([torch.arange(n) + i * longest for i, n in enumerate(some)])
        runs.append(_Run(tokens, len(some), longest, group, places))
        start = tokens.stop
    return runs


def _alike(lengths: Sequence[int], padding: int) -> list[list[int]]:
    """Neighbours together, where what padding adds costs no more than that."""
    found: list[list[int]] = []
    longest = 0
    for length in lengths:
        some, most = found[-1] if found else [], max(longest, length)
        added = (len(some) + 1) * most**2 - len(some) * longest**2 - length**2
        if some and added <= padding:
            some.append(length)
            longest = most
        else:
            found.append([length])
            longest = length
    return found


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
        out, kept = attend(q, k, v, lengths, scale)
        if any(ctx.needs_input_grad):
            ctx.kept, ctx.shapes = kept, [x.shape for x in (q, k, v)]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        kept: Kept = ctx.kept
        ctx.kept = None
        dq, dk, dv = (grad.new_empty(shape) for shape in ctx.shapes)
        kept.backward(grad.reshape(len(grad), -1), (dq, dk, dv))
        return dq, dk, dv, None, None


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float, dropout: float = 0.0
) -> Tensor:
    """Causal attention inside each document of a packed row.

    q: (T, H, D); k, v: (T, H_kv, D), H a multiple of H_kv; lengths: of the documents, summing to T.
    dropout: the share of attention weights that are left out; with any, torch's kernel is called.
    Returns (T, H, D).
    """
    if q.device.type == "cpu" and not dropout:
        return _BlockAttention.apply(q, k, v, lengths, scale)  # type: ignore[no-any-return, no-untyped-call]
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and not dropout:
        from torch.nn.attention.varlen import varlen_attn  # more than a second, for CUDA alone

        ends, most = _ends(tuple(lengths), q.device), max(lengths)
        return varlen_attn(  # type: ignore[return-value]  # of two with logsumexp, which is not asked for
            q, k, v, ends, ends, most, most, scale=scale, window_size=(-1, 0), enable_gqa=True
        )
    runs = _runs(tuple(lengths), 1, 0)
    return torch.cat([_dense(run, q, k, v, scale, dropout) for run in runs])


@lru_cache(8)
def _ends(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """(documents + 1,) int32: where each begins, and the end; the same for every layer."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def _dense(run: _Run, q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float) -> Tensor:
    """Documents of one length, by torch's dense kernel."""
    shape = (run.count, run.length, -1, q.shape[-1])
    q, k, v = (x[run.tokens].view(shape).transpose(1, 2) for x in (q, k, v))
    out = functional.scaled_dot_product_attention(
        q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=True
    )
    return out.transpose(1, 2).flatten(0, 1)
