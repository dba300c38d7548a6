"""Decoding steps that are recorded once and replayed: CUDA graphs.

A step of a few tokens is to a GPU some thousand small kernels, and launching them takes longer than they do.
A graph launches all of them at once, for the same shapes and on the same memory each time. So rows and
context are rounded up, all that differs from one step to the next is written into one tensor, and keys and
values are gathered from their blocks, which never move, in place of lanes, which come and go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dialoop.models.cache import Cache, Span
from dialoop.models.paged import TOLERANCE, Body
from dialoop.models.steps import SpanStep, attention, visible

log = logging.getLogger("dialoop.engine")

Run = Callable[[], Tensor]
Record = Callable[[Run], Run]
"""What a function computes on its device, to be computed again by another; the result stays in its place."""

MOST_ROWS = 64
SMALLEST_CONTEXT = 256
MOST_TOKENS = 2**17
"""Rows by context of a graph: what it gathers in each layer."""
TOKEN, POSITION, SLOT, BLOCKS = range(4)
"""Columns of what differs from step to step; blocks come last."""


def recorder(device: torch.device) -> Record | None:
    """How steps are recorded on a device, None = not at all."""
    return _CudaGraphs(device) if device.type == "cuda" else None


class _CudaGraphs:
    """They share their memory: one is replayed at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            run()  # whatever is made at its first call must not be part of the graph
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Another thread may load an adapter meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out = run()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay


class Graphs:
    """Steps of one token for each of some sequences, by their rounded rows and context.

    Each graph proves itself when it is recorded, against the same step as it is. Where one cannot be
    recorded, or computes something else, the log says so and no more are tried. block: tokens of a block.
    """

    def __init__(self, body: Body, cache: Cache, block: int, record: Record) -> None:
        self._body, self._cache, self._block, self._record = body, cache, block, record
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._usable = True

    def __len__(self) -> int:
        return len(self._recorded)

    @torch.inference_mode()
    def logits(self, token_ids: Sequence[int], spans: Sequence[Span]) -> Tensor | None:
        """(T, V) float32, after each of the tokens; None for a step that no graph is made for."""
        rows = _rounded(len(spans), 1)
        context = _rounded(max(span.stop for span in spans), SMALLEST_CONTEXT)
        alone = all(span.stop - span.start == 1 for span in spans)
        if not self._usable or not alone or rows > MOST_ROWS or rows * context > MOST_TOKENS:
            return None
        if (rows, context) not in self._recorded:
            return self._first(token_ids, spans, rows, context)
        recorded = self._recorded[rows, context]
        recorded.write(token_ids, spans)
        return recorded.replay()[: len(spans)].clone()

    def _first(self, token_ids: Sequence[int], spans: Sequence[Span], rows: int, context: int) -> Tensor:
        """The step as it is, and a graph of it for those that follow."""
        device = self._body.device
        wanted = self._as_it_is(token_ids, spans)
        given = torch.zeros(rows, BLOCKS + context // self._block, dtype=torch.long)
        there = given.to(device)

        def run() -> Tensor:
            step = _FixedStep(self._cache, there, self._block)
            return self._body.logits(there[:, TOKEN], step, torch.arange(rows, device=device))

        recorded = _Recorded(given, there, run, self._block, self._cache.slots)
        recorded.write(token_ids, spans)
        try:
            recorded.replay = self._record(run)
            got = recorded.replay()[: len(spans)]
            apart = float((got - wanted).norm() / wanted.norm())
            wrong = "" if apart <= TOLERANCE else f"logits come out {100 * apart:.1f} % apart"
        except (RuntimeError, TypeError, ValueError) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            self._usable = False
            self._recorded.clear()
            log.warning("steps are computed without CUDA graphs: %s", wrong)
            return self._as_it_is(token_ids, spans)  # the graph may have written other keys and values
        self._recorded[rows, context] = recorded
        log.info("recorded a step of %d rows and %d tokens", rows, context)
        return wanted

    def _as_it_is(self, token_ids: Sequence[int], spans: Sequence[Span]) -> Tensor:
        device = self._body.device
        rows = torch.arange(len(token_ids), device=device)
        step = SpanStep(self._cache, spans, device)
        return self._body.logits(torch.tensor(token_ids, device=device), step, rows)


@dataclass(slots=True)
class _Recorded:
    """given: what differs from step to step, (rows, columns), and `there` the same on the device.

    spare: the slot that rows without a sequence write to.
    """

    given: Tensor
    there: Tensor
    replay: Run
    block: int
    spare: int

    def write(self, token_ids: Sequence[int], spans: Sequence[Span]) -> None:
        """Rows after those of the spans go on with what they had: nobody looks at them."""
        numbers = self.given.numpy()
        for row, (token, span) in enumerate(zip(token_ids, spans, strict=True)):
            blocks = span.blocks[: -(-span.stop // self.block)]
            numbers[row, :BLOCKS] = token, span.start, span.slots(span.start, span.stop)[0]
            numbers[row, BLOCKS : BLOCKS + len(blocks)] = blocks
        numbers[len(spans) :, SLOT] = self.spare
        self.there.copy_(self.given)


class _FixedStep:
    """A step of one token a row, all of it computed from `given`, (rows, columns)."""

    def __init__(self, cache: Cache, given: Tensor, block: int) -> None:
        self._cache = cache
        self.positions, self._written = given[:, POSITION], given[:, SLOT]
        within = torch.arange(block, device=given.device)
        self._slots = (given[:, BLOCKS:, None] * block + within).flatten()
        self.longest = len(self._slots) // len(given)
        self._age = self.positions[:, None] - torch.arange(self.longest, device=given.device)

    def attend(
        self, layer: int, query: Tensor, pairs: Tensor, *, scale: float, window: int | None = None,
        cap: float | None = None,
    ) -> Tensor:  # fmt: skip
        held = self._cache.layer(layer, pairs)
        held.index_copy_(0, self._written, pairs)
        rows, (both, size) = len(query), pairs.shape[1:]
        seen = held.index_select(0, self._slots).view(rows, self.longest, both, size).transpose(1, 2)
        k, v = seen.chunk(2, dim=1)
        mask = visible(self._age, window)[:, None, None]
        q = query.view(rows, both // 2, -1, size)
        return attention(q, k, v, mask, scale, cap).reshape(query.shape)

    def in_lanes(self) -> None:
        """None has any."""


def _rounded(number: int, least: int) -> int:
    """Up to `least`, twice as much, four times, and so on."""
    return max(least, 1 << (number - 1).bit_length())
