"""Hidden states of tokens whose past lies in key-value blocks, from any transformers decoder.

One forward reads tokens of many sequences side by side: whole prompts, chunks of prompts and single next
tokens. Every attention layer writes its keys and values to the blocks and reads a sequence's own from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from dialoop.models.cache import Cache, Lane, Span
from dialoop.models.opening import Past, opening_of
from dialoop.models.packed import head_logits
from dialoop.models.steps import SpanStep, Step

NAME = "dialoop_paged"
TOLERANCE = 0.05


def _interface(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None,
    softcap: float | None = None, paged_step: Step | None = None, opening_past: Past | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention interface."""
    assert paged_step is not None
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if opening_past is not None:
        key, value = opening_past.give(layer, key, value)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    pairs = torch.cat([k, functional.pad(v, (0, k.shape[-1] - v.shape[-1]))], dim=1)
    out = paged_step.attend(layer, q, pairs, scale=scale, window=sliding_window, cap=softcap)
    return out[None, ..., : v.shape[-1]], None


class Body(Protocol):
    """Reads tokens whose past lies in blocks."""

    @property
    def device(self) -> torch.device: ...

    def hidden(self, token_ids: Tensor, step: Step) -> Tensor:
        """(T, D): the last hidden states of the tokens of all spans."""
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, V) float32."""
        ...

    def logits(self, token_ids: Tensor, step: Step, rows: Tensor) -> Tensor:
        """(len(rows), V) float32, after those rows of `token_ids`, (T,), the tokens of all spans."""
        ...


class PagedBody:
    """Next-token logits of a model that leaves its attention and its past to transformers' interface.

    Whether it does is to be probed: `agrees`. The model's attention is another only while a step runs.
    """

    def __init__(self, model: nn.Module) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, _interface)
        self._model: Any = model

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self._model.parameters()).device
        return device

    @torch.inference_mode()
    def logits(self, token_ids: Tensor, step: Step, rows: Tensor) -> Tensor:
        return self.head(self.hidden(token_ids, step)[rows])

    @torch.inference_mode()
    def hidden(self, token_ids: Tensor, step: Step) -> Tensor:
        opening = opening_of(self._model)
        past = None if opening is None else opening.past(token_ids)
        given = {} if past is None else {"opening_past": past}
        with self._attention():
            out = self._model.get_decoder()(
                input_ids=token_ids[None], position_ids=step.positions[None], attention_mask=None,
                use_cache=False, paged_step=step, **given,
            )  # fmt: skip
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    @torch.inference_mode()
    def head(self, hidden: Tensor) -> Tensor:
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


def agrees(body: Body, model: Any, *, in_float32: bool = False) -> bool:
    """Whether `body` gives the logits of `model`, two sequences read in chunks beside each other.

    in_float32: hold it against what the model's weights give in float32; through many layers 16-bit
    activations stray as far from that as a mistake would.
    """
    try:
        vocabulary = model.get_input_embeddings().weight.shape[0]
        ids = [torch.arange(1, 1 + n, device=body.device) % vocabulary for n in (7, 4)]
        with torch.inference_mode():
            with _widened(model) if in_float32 else nullcontext():
                first, second = (model(input_ids=x[None], use_cache=False).logits[0].float() for x in ids)
            got = _in_chunks(body, *ids)
    except (TypeError, ValueError, RuntimeError, AttributeError, AssertionError):
        return False
    wanted = torch.cat([first[:6], second, first[6:]])
    return bool((got - wanted).norm() <= TOLERANCE * wanted.norm())


@contextmanager
def _widened(model: nn.Module) -> Iterator[None]:
    """Each module computes with float32 copies of its parameters, which live as long as its own turn."""
    narrow: dict[nn.Parameter, Tensor] = {}

    def widen(module: nn.Module, *_: object) -> None:
        for parameter in module.parameters(recurse=False):
            narrow[parameter] = parameter.data
            parameter.data = parameter.data.float()

    def restore(module: nn.Module, *_: object) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = narrow.pop(parameter)

    hooks = [hook for module in model.modules() for hook in (
        module.register_forward_pre_hook(widen), module.register_forward_hook(restore)
    )]  # fmt: skip
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, data in narrow.items():
            parameter.data = data


def _in_chunks(body: Body, first: Tensor, second: Tensor) -> Tensor:
    cache, slots, lane = Cache(16), range(15, -1, -1), Lane()
    steps = (
        (first[:5], [Span(0, 5, slots)]),
        (torch.cat([first[5:6], second]), [Span(5, 6, slots, lane=lane), Span(0, 4, slots[7:])]),
        (first[6:], [Span(6, 7, slots)]),
    )
    return torch.cat([
        body.logits(ids, SpanStep(cache, spans, ids.device), torch.arange(len(ids), device=ids.device))
        for ids, spans in steps
    ])  # fmt: skip
