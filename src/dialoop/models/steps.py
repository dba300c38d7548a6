"""The attention of one forward's tokens to the keys and values that a cache holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dialoop.models.cache import Cache, Lanes, Span
from dialoop.models.native.kernels import attending


class Step(Protocol):
    """The tokens of one forward, as its layers need them."""

    @property
    def positions(self) -> Tensor:
        """Of the tokens in their sequences, (T,)."""
        ...

    @property
    def longest(self) -> int:
        """At least one more than the highest position."""
        ...

    def attend(
        self, layer: int, query: Tensor, pairs: Tensor, *, scale: float, window: int | None = None,
        cap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """query: (T, H, D); pairs: (T, 2 * H_kv, D), the tokens' own. Returns (T, H, D).

        window: how many tokens a query sees, itself included.  cap: Gemma 2's soft cap of scores.
        """
        ...

    def in_lanes(self) -> InLanes | None:
        """Where all tokens have lanes of one group, and lie in their order."""
        ...


class InLanes(NamedTuple):
    """Of each layer the lanes, (count, 2 * H_kv, capacity, D), and the blocks, (slots, 2 * H_kv, D).

    places, stops: of each token its lane and how many tokens of that it sees, itself the last, (T,).  slots:
    where in the blocks it goes, (T,).
    """

    lanes: Sequence[Tensor]
    blocks: Sequence[Tensor]
    places: Tensor
    stops: Tensor
    slots: Tensor


class SpanStep:
    """The `Step` of any spans."""

    def __init__(self, cache: Cache, spans: Sequence[Span], device: torch.device) -> None:
        self.cache = cache
        self.device = device
        self.longest = max((span.stop for span in spans), default=0)
        self.positions = self._tensor(chain.from_iterable(range(span.start, span.stop) for span in spans))
        self._written = self._tensor(chain.from_iterable(s.slots(s.start, s.stop) for s in spans))
        starts, place = [], 0
        for span in spans:
            starts.append(place)
            place += span.stop - span.start
        seated = cache.seat(spans)
        self._parts: list[_Decoding | _Chunk] = [
            _Decoding(self, lanes, [spans[i] for i in members], [starts[i] for i in members])
            for lanes, members in seated.items()
        ]
        in_lanes = {i for members in seated.values() for i in members}
        self._parts += [_Chunk(self, span, starts[i]) for i, span in enumerate(spans) if i not in in_lanes]

    def _tensor(self, numbers: Any) -> Tensor:
        return torch.tensor(list(numbers), device=self.device)

    def attend(
        self, layer: int, query: Tensor, pairs: Tensor, *, scale: float, window: int | None = None,
        cap: float | None = None,
    ) -> Tensor:  # fmt: skip
        self.cache.layer(layer, pairs).index_copy_(0, self._written, pairs)
        inputs = _Inputs(layer, query, pairs, scale, window, cap)
        if len(self._parts) == 1:
            part = self._parts[0]
            if isinstance(part.rows, slice):
                return part.attend(inputs)
        out = torch.empty_like(query)
        for part in self._parts:
            out[part.rows] = part.attend(inputs.of(part.rows))
        return out

    def in_lanes(self) -> InLanes | None:
        part = self._parts[0] if len(self._parts) == 1 else None
        if not isinstance(part, _Decoding) or not isinstance(part.rows, slice):
            return None
        lanes = part.lanes.layers
        blocks = [self.cache.layers[i] for i in lanes]
        return InLanes(list(lanes.values()), blocks, part.places, part.stops, self._written)


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """Of one layer, and of all tokens of a step or of those that one part attends to."""

    layer: int
    query: Tensor
    pairs: Tensor
    scale: float
    window: int | None
    cap: float | None

    def of(self, rows: Any) -> _Inputs:
        """Of these tokens alone."""
        return replace(self, query=self.query[rows], pairs=self.pairs[rows])


class _Decoding:
    """Spans of a few tokens with lanes of one group: all in one product, padded to the longest."""

    def __init__(self, step: SpanStep, lanes: Lanes, spans: Sequence[Span], starts: Sequence[int]) -> None:
        self.lanes = lanes
        self._count = len(spans)
        self._longest = max(span.stop for span in spans)
        self._sizes = [span.stop - span.start for span in spans]
        self._spans = spans
        self._step = step
        places = [range(at, at + size) for at, size in zip(starts, self._sizes, strict=True)]
        flat = list(chain.from_iterable(places))
        in_order = flat == list(range(flat[0], flat[0] + len(flat)))
        self.rows: Any = slice(flat[0], flat[0] + len(flat)) if in_order else step._tensor(flat)
        self._most = max(self._sizes)
        self._even = len(set(self._sizes)) == 1
        self._masks: dict[tuple[int | None, int], Tensor | None] = {}
        self._slots: dict[int, Tensor] = {}
        for span in spans:
            assert span.lane is not None
            span.lane.filled = span.stop

    def attend(self, x: _Inputs) -> Tensor:
        """(tokens of the spans, H, D). x: of these tokens."""
        lanes, size = self.lanes.layers[x.layer], x.query.shape[-1]
        if (own := attending(x.query)) is not None:
            told = lanes, self.places, self.stops, x.query, x.pairs
            return own.attend(*told, scale=x.scale, window=x.window, cap=x.cap)
        both = x.pairs.shape[1]
        lanes.view(-1, size).index_copy_(0, self._slots_of(both), x.pairs.reshape(-1, size))
        k, v = lanes[: self._count, :, : self._longest].chunk(2, dim=1)
        most, heads, repeats = self._most, both // 2, 2 * x.query.shape[1] // both
        mask = self._mask(x.window, repeats)
        if most == 1:
            q = x.query.view(self._count, heads, repeats, size)
            return attention(q, k, v, mask, x.scale, x.cap).reshape(x.query.shape)
        q = x.query if self._even else self._padded(x.query)
        q = q.view(self._count, most, heads, repeats, size).permute(0, 2, 3, 1, 4)
        q = q.reshape(self._count, heads, repeats * most, size)
        out = attention(q, k, v, mask, x.scale, x.cap).view(self._count, heads, repeats, most, size)
        out = out.permute(0, 3, 1, 2, 4).reshape(self._count, most, heads * repeats, size)
        return out.flatten(0, 1) if self._even else out[self._real]

    def _slots_of(self, heads: int) -> Tensor:
        """Where the new tokens of every head lie in the flattened lanes, (tokens * heads,)."""
        if heads not in self._slots:
            capacity = self.lanes.capacity
            self._slots[heads] = self._step._tensor(
                (i * heads + head) * capacity + token
                for i, span in enumerate(self._spans)
                for token in range(span.start, span.stop)
                for head in range(heads)
            )
        return self._slots[heads]

    @cached_property
    def places(self) -> Tensor:
        """Of each token the lane."""
        return self._step._tensor(i for i, size in enumerate(self._sizes) for _ in range(size))

    @cached_property
    def stops(self) -> Tensor:
        """Of each token how many of its lane it sees, itself the last."""
        return self._step._tensor(i + 1 for span in self._spans for i in range(span.start, span.stop))

    @cached_property
    def _real(self) -> Tensor:
        """(count, most) bool: which places of the padded queries are tokens."""
        sizes = self._step._tensor(self._sizes)
        return torch.arange(self._most, device=sizes.device) < sizes[:, None]

    def _padded(self, query: Tensor) -> Tensor:
        padded = query.new_zeros(self._count, self._most, *query.shape[1:])
        padded[self._real] = query
        return padded

    def _mask(self, window: int | None, repeats: int) -> Tensor | None:
        """0 where seen, -inf where not; None where all is seen.

        (count, 1, most queries of each of `repeats` heads, longest); of one query, for all heads alike.
        """
        key = window, repeats
        if key not in self._masks:
            mask = self._make_mask(window)
            if mask is not None and self._most > 1:
                mask = mask.repeat(1, 1, repeats, 1)
            self._masks[key] = mask
        return self._masks[key]

    def _make_mask(self, window: int | None) -> Tensor | None:
        most, longest = self._most, self._longest
        same = most == 1 and all(span.stop == longest for span in self._spans)
        if same and (window is None or window >= longest):
            return None
        starts = self._step._tensor(span.start for span in self._spans)
        places = torch.arange(longest, device=starts.device)
        age = (starts[:, None] + places[:most])[:, :, None] - places
        hidden = torch.zeros(age.shape, device=starts.device)
        return hidden.masked_fill_(~visible(age, window), -torch.inf)[:, None]


class _Chunk:
    """Many tokens of one sequence; its past, where it has one, is gathered."""

    def __init__(self, step: SpanStep, span: Span, start: int) -> None:
        self.rows = slice(start, start + span.stop - span.start)
        self._span = span
        self._step = step
        self._past: Tensor | None = None
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, x: _Inputs) -> Tensor:
        """(tokens of the span, H, D). x: of these tokens."""
        pairs = x.pairs
        if self._span.start:
            pairs = self._step.cache.layers[x.layer].index_select(0, self._slots())
        plain = not self._span.start and (x.window is None or x.window >= self._span.stop)
        mask = None if plain else self._mask(x.window)
        q, k, v = (t.transpose(0, 1)[None] for t in (x.query, *pairs.chunk(2, dim=1)))
        return attention(q, k, v, mask, x.scale, x.cap, causal=plain)[0].transpose(0, 1)

    def _slots(self) -> Tensor:
        if self._past is None:
            self._past = self._step._tensor(self._span.slots(0, self._span.stop))
        return self._past

    def _mask(self, window: int | None) -> Tensor:
        """(stop - start, stop) bool: which tokens each query sees."""
        if window not in self._masks:
            at = torch.arange(self._span.stop, device=self._step.device)
            self._masks[window] = visible(at[self._span.start :, None] - at, window)
        return self._masks[window]


def visible(age: Tensor, window: int | None) -> Tensor:
    """Which keys a query may see, by how many tokens ago they were; below 0 = after it."""
    return (age >= 0) if window is None else (age >= 0) & (age < window)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, cap: float | None,
    *, causal: bool = False,
) -> Tensor:  # fmt: skip
    """q: (B, H, T, D); k, v: (B, H_kv, L, D); mask: bool, True = seen, or added to the scores."""
    if cap is None:
        grouped = q.shape[1] != k.shape[1]
        return functional.scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=grouped
        )  # fmt: skip
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = torch.tanh(q @ k.mT * (scale / cap)) * cap
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, -torch.inf)
    return scores.float().softmax(-1).to(v.dtype) @ v
