"""Hidden states of tokens whose past lies in key-value blocks, from any transformers decoder.

One forward reads tokens of many sequences side by side: whole prompts, chunks of prompts and single next
tokens. Every attention layer writes its keys and values to the blocks and reads a sequence's own from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dialoop.errors import ModelError
from dialoop.models.packed import head_logits

NAME = "dialoop_paged"
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Tokens [start, stop) of one sequence. slots: (stop,) int64, where keys and values of [0, stop) lie."""

    start: int
    stop: int
    slots: Tensor


class Cache:
    """Keys and values of `slots` tokens in every layer; memory is touched as it fills."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's (slots, heads, size) tensors, made to fit `key` and `value`, (1, heads, T, size)."""
        if index not in self._layers:
            shapes = ((self._slots, x.shape[1], x.shape[3]) for x in (key, value))
            keys, values = (torch.empty(shape, dtype=key.dtype, device=key.device) for shape in shapes)
            self._layers[index] = (keys, values)
        return self._layers[index]


class Step:
    """The spans of one forward, as the attention layers need them.

    Spans of one token are attended to together, padded to the longest; the others one by one.
    """

    def __init__(self, cache: Cache, spans: Sequence[Span]) -> None:
        self.cache = cache
        self.spans = spans
        self.written = torch.cat([span.slots[span.start :] for span in spans])
        sizes = [span.stop - span.start for span in spans]
        ends = torch.tensor(sizes).cumsum(0).tolist()
        self.rows = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self.ages = [_age(span, self.written.device) for span in spans]
        self.single = [i for i, size in enumerate(sizes) if size == 1]
        if self.single:
            self._pad([spans[i].slots for i in self.single])

    def _pad(self, slots: Sequence[Tensor]) -> None:
        device = slots[0].device
        self.single_rows = torch.tensor([self.rows[i].start for i in self.single], device=device)
        self.single_slots = nn.utils.rnn.pad_sequence(list(slots), batch_first=True)
        lengths = torch.tensor([len(each) for each in slots], device=device)
        self.single_age = lengths[:, None] - 1 - torch.arange(self.single_slots.shape[1], device=device)

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None, cap: float | None
    ) -> Tensor:
        """query: (1, H, T, D); keys, values: a layer's. Returns (1, T, H, D of values)."""
        out = query.new_empty(query.shape[2], query.shape[1], values.shape[-1])
        if self.single:
            q = query[0][:, self.single_rows].transpose(0, 1)[:, :, None]
            k, v = (x[self.single_slots].transpose(1, 2) for x in (keys, values))
            mask = _visible(self.single_age, window)[:, None, None]
            out[self.single_rows] = _attention(q, k, v, mask, scale, cap)[:, :, 0]
        for span, rows, age in zip(self.spans, self.rows, self.ages, strict=True):
            if span.stop - span.start > 1:
                k, v = (x[span.slots].transpose(0, 1)[None] for x in (keys, values))
                attended = _attention(query[:, :, rows], k, v, _visible(age, window), scale, cap)
                out[rows] = attended[0].transpose(0, 1)
        return out[None]


def _age(span: Span, device: torch.device) -> Tensor:
    """(stop - start, stop): how many tokens before each query each key was; below 0 = after it."""
    at = torch.arange(span.stop, device=device)
    return at[span.start :, None] - at


def _visible(age: Tensor, window: int | None) -> Tensor:
    """Which keys a query may see, by how many tokens ago they were."""
    return (age >= 0) if window is None else (age >= 0) & (age < window)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float | None) -> Tensor:
    """q: (B, H, T, D); k, v: (B, H_kv, L, D); mask: bool, True = seen; cap: Gemma 2's soft cap of scores."""
    if cap is None:
        return functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True)
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = torch.tanh(q @ k.mT * (scale / cap)) * cap
    weights = scores.masked_fill(~mask, -torch.inf).float().softmax(-1)
    return weights.to(v.dtype) @ v


def _interface(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None,
    softcap: float | None = None, paged_step: Step | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention interface."""
    assert paged_step is not None
    keys, values = paged_step.cache.layer(int(module.layer_idx), key, value)  # type: ignore[arg-type]
    keys.index_copy_(0, paged_step.written, key[0].transpose(0, 1))
    values.index_copy_(0, paged_step.written, value[0].transpose(0, 1))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return paged_step.attend(query, keys, values, scale, sliding_window, softcap), None


class PagedBody:
    """Next-token logits of a model that leaves its attention and its past to transformers' interface.

    That is not believed but probed once, against its own attention: else ModelError. The model's attention
    is another only while a step runs.
    """

    def __init__(self, model: nn.Module) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, _interface)
        self._model: Any = model
        if not self._fits():
            raise ModelError(
                f"{type(model).__name__} keeps its past in a way of its own: read its sequences one by one"
            )

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        weight: Tensor = self._model.get_output_embeddings().weight
        return weight.device

    @torch.inference_mode()
    def logits(self, token_ids: Tensor, step: Step, rows: Tensor) -> Tensor:
        """(len(rows), V) float32, after those rows of `token_ids`, (T,), the tokens of all spans."""
        return self.head(self.hidden(token_ids, step)[rows])

    @torch.inference_mode()
    def hidden(self, token_ids: Tensor, step: Step) -> Tensor:
        """(T, D): the last hidden states of the tokens of all spans."""
        with self._attention():
            return self._hidden(token_ids, step)

    @torch.inference_mode()
    def head(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, V) float32."""
        return head_logits(self._model, hidden).float()

    @contextmanager
    def _attention(self) -> Iterator[None]:
        config = self._model.get_decoder().config
        own = config._attn_implementation
        config._attn_implementation = NAME
        try:
            yield
        finally:
            config._attn_implementation = own

    def _hidden(self, token_ids: Tensor, step: Step) -> Tensor:
        positions = [torch.arange(span.start, span.stop, device=token_ids.device) for span in step.spans]
        out = self._model.get_decoder()(
            input_ids=token_ids[None], position_ids=torch.cat(positions)[None], attention_mask=None,
            use_cache=False, paged_step=step,
        )  # fmt: skip
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    @torch.inference_mode()
    def _fits(self) -> bool:
        """Two sequences read in chunks beside each other, against each read whole."""
        try:
            weight = self._model.get_output_embeddings().weight
            ids = [torch.arange(1, 1 + n, device=weight.device) % weight.shape[0] for n in (7, 4)]
            decoder = self._model.get_decoder()
            first, second = (decoder(input_ids=x[None], use_cache=False).last_hidden_state[0] for x in ids)
            with self._attention():
                got = self._in_chunks(*ids).float()
        except (TypeError, ValueError, RuntimeError, AttributeError, AssertionError):
            return False
        wanted = torch.cat([first[:6], second, first[6:]]).float()
        return bool((got - wanted).norm() <= TOLERANCE * wanted.norm())

    def _in_chunks(self, first: Tensor, second: Tensor) -> Tensor:
        cache, slots = Cache(16), torch.arange(16, device=first.device).flip(0)
        steps = (
            (first[:5], [Span(0, 5, slots[:5])]),
            (torch.cat([first[5:6], second]), [Span(5, 6, slots[:6]), Span(0, 4, slots[7:11])]),
            (first[6:], [Span(6, 7, slots[:7])]),
        )
        return torch.cat([self._hidden(ids, Step(cache, spans)) for ids, spans in steps])
