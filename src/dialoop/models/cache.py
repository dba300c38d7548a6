"""Keys and values of running sequences.

They lie in blocks, which sequences that begin alike share. A sequence that decodes has a lane beside: the
same keys and values in one piece, so that no step gathers them again. Of each token the heads of
keys and then those of values lie together, "pairs", (2 * H_kv, D), and are written at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dialoop.models.native.kernels import LARGEST_HALF, attending

LANE_QUERIES = 16
"""The most tokens that a sequence may read in one step from its lane."""
SMALLEST_LANE = 256
"""Tokens; the others are twice as many, four times, and so on, and none has more than a sequence may."""


class Lane:
    """Where one sequence's lane lies: the first `filled` of its tokens are there."""

    def __init__(self) -> None:
        self.filled = 0
        self.index = 0
        self.group: Lanes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Tokens [start, stop) of one sequence, whose token i lies in slot i % size of block blocks[i // size].

    lane: of the sequence, where it may have one.
    """

    start: int
    stop: int
    blocks: Sequence[int]
    size: int = 1
    lane: Lane | None = None

    def slots(self, start: int, stop: int) -> list[int]:
        """Of the tokens [start, stop)."""
        size, blocks = self.size, self.blocks
        return [blocks[i // size] * size + i % size for i in range(start, stop)]


class Cache:
    """Keys and values of `slots` tokens in every layer, and of one more that belongs to nobody.

    longest: tokens that a sequence may have, 0 = not known.  zeroed: so that what was never written may be
    read and masked; else memory is touched as it fills.  half: float32 ones lie in lanes as fp16, where the
    kernels attend to them.
    """

    def __init__(self, slots: int, longest: int = 0, *, zeroed: bool = False, half: bool = False) -> None:
        self.slots = slots
        self._zeroed = zeroed
        self._half = half
        self._longest = longest
        self.layers: dict[int, Tensor] = {}
        self._groups: dict[int, Lanes] = {}

    def layer(self, index: int, pairs: Tensor) -> Tensor:
        """The layer's (slots + 1, 2 * H_kv, D), made to fit `pairs`, (T, 2 * H_kv, D)."""
        if index not in self.layers:
            make = pairs.new_zeros if self._zeroed else pairs.new_empty
            self.layers[index] = make((self.slots + 1, *pairs.shape[1:]))
        return self.layers[index]

    def new_lanes(self, layer: Tensor, capacity: int) -> Tensor:
        """None yet, for a layer of the blocks."""
        dtype = torch.half if self._half and attending(layer) else layer.dtype
        return layer.new_empty(0, layer.shape[1], capacity, layer.shape[2], dtype=dtype)

    def seat(self, spans: Sequence[Span]) -> dict[Lanes, list[int]]:
        """Lanes for those spans that may have one, filled up to their starts: the spans of each group.

        The lanes of all others are given up. In a group they lie in the order told, from the first.
        """
        small = [i for i, s in enumerate(spans) if s.lane is not None and s.stop - s.start <= LANE_QUERIES]
        present = {spans[i].lane for i in small}
        for capacity, group in list(self._groups.items()):
            for gone in [member for member in group.members if member not in present]:
                group.leave(gone)
            if not group.members:
                del self._groups[capacity]
        for i in small:
            self._seat(spans[i], len(small))
        seated: dict[Lanes, list[int]] = {}
        for i in sorted(small, key=lambda i: spans[i].lane.index):  # type: ignore[union-attr]
            lane = spans[i].lane
            if lane is not None and lane.group is not None:
                seated.setdefault(lane.group, []).append(i)
        return seated

    def _seat(self, span: Span, together: int) -> None:
        """together: how many spans of the step may have a lane."""
        lane = span.lane
        assert lane is not None
        if lane.group is not None and span.stop > lane.group.capacity:
            lane.group.leave(lane)
        if lane.group is None and self.layers:
            capacity = max(SMALLEST_LANE, 1 << (span.stop - 1).bit_length())
            if span.stop <= self._longest:
                capacity = min(capacity, self._longest)
            taken = sum(len(group.members) * group.capacity for group in self._groups.values())
            if taken + capacity <= max(self.slots, capacity):
                group = self._groups.get(capacity) or Lanes(self, capacity)
                self._groups[capacity] = group
                group.join(lane, together)
        if lane.group is not None:
            lane.filled = min(lane.filled, span.start)
            lane.group.fill(lane, span)


class Lanes:
    """Lanes of one capacity, the members' in the first places; there are more of them as members come.

    layers: the layer's (count, 2 * H_kv, capacity, D).
    """

    def __init__(self, cache: Cache, capacity: int) -> None:
        self.capacity = capacity
        self.members: list[Lane] = []
        self._blocks = cache.layers
        self._clean = 0
        self.layers = {i: cache.new_lanes(x, capacity) for i, x in cache.layers.items()}

    def join(self, lane: Lane, together: int) -> None:
        """together: how many are about to."""
        held = len(next(iter(self.layers.values())))
        if len(self.members) == held:
            for i, x in self.layers.items():
                self.layers[i] = x.new_empty(held + max(held, together), *x.shape[1:])
                self.layers[i][:held] = x
        if len(self.members) == self._clean:
            # To torch, what is masked still takes part, times zero: it must be a number.
            for i, x in self.layers.items():
                if attending(self._blocks[i]) is None:
                    x[self._clean].zero_()
            self._clean += 1
        lane.group, lane.index, lane.filled = self, len(self.members), 0
        self.members.append(lane)

    def leave(self, lane: Lane) -> None:
        """The last member takes the place."""
        last = self.members.pop()
        if last is not lane:
            for x in self.layers.values():
                x[lane.index, :, : last.filled] = x[last.index, :, : last.filled]
            last.index = lane.index
            self.members[lane.index] = last
        lane.group, lane.filled = None, 0

    def fill(self, lane: Lane, span: Span) -> None:
        """Copy what the lane lacks before the span's start."""
        if lane.filled == span.start:
            return
        any_layer = next(iter(self.layers.values()))
        slots = torch.tensor(span.slots(lane.filled, span.start), device=any_layer.device)
        for i, x in self.layers.items():
            lacking = self._blocks[i].index_select(0, slots).transpose(0, 1)
            if x.dtype == torch.half != lacking.dtype:
                lacking.clamp_(-LARGEST_HALF, LARGEST_HALF)
            x[lane.index, :, lane.filled : span.start] = lacking
        lane.filled = span.start
