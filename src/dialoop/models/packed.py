"""Hidden states of packed rows from any transformers decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dialoop.errors import ModelError
from dialoop.models.attention import packed_attention
from dialoop.models.block import layers, stack_weights, states
from dialoop.models.opening import Past, PrefixOpening, opening_of
from dialoop.models.quantised import QuantisedLinear

NAME = "dialoop_packed"
TOLERANCE = 0.05


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, document_lengths: Sequence[int] = (),
    opening_past: Past | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention interface. query: (1, H, T, D); returns (1, T, H, D)."""
    if opening_past is not None:
        key, value = opening_past.give(int(module.layer_idx), key, value)  # type: ignore[arg-type]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    lengths = document_lengths or (q.shape[0],)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = packed_attention(q, k, v, lengths, scale, dropout=dropout)
    return out[None], None


def register() -> None:
    """Make `attn_implementation="dialoop_packed"` known; no mask is built for it, none is needed."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)


class PackedBody:
    """`hidden(token_ids (T,), lengths) -> (T, D)`, each document seeing itself alone, and the head (V, D).

    Whether an architecture honours packed rows is not believed but probed once, against its own attention
    on each document alone; one that does not runs document by document. What a soft prompt puts before each
    document is not in the rows that come and go here. Raises ModelError for learnt keys and values in a
    model that does not pack.

    noise: NEFTune's alpha, for a model in training mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        config: Any = model.config
        self.own = str(config._attn_implementation)
        self.opening = opening_of(model)
        self.noise = 0.0
        self.lean = False
        self.packs = self._probe()
        if isinstance(self.opening, PrefixOpening) and not self.packs:
            raise ModelError(
                f"{type(model).__name__} takes no keys and values from outside: use the method prompt or lora"
            )

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def head(self) -> Tensor:
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight

    @contextmanager
    def unopened(self) -> Iterator[None]:
        """While it lasts, nothing is put before documents: the base without its soft prompt."""
        opening, self.opening = self.opening, None
        try:
            yield
        finally:
            self.opening = opening

    def hidden(self, token_ids: Tensor, lengths: Sequence[int]) -> Tensor:
        if self.opening is None:
            return self._states(token_ids, lengths)
        opened, longer, real = self.opening.before(token_ids, lengths)
        return self._states(opened, longer)[real]

    def _states(self, token_ids: Tensor, lengths: Sequence[int]) -> Tensor:
        if self.packs:
            return self._packed(token_ids, lengths)
        return torch.cat([self._alone(document) for document in _documents(token_ids, lengths)])

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, V)."""
        return head_logits(self.model, hidden)

    def _packed(self, token_ids: Tensor, lengths: Sequence[int]) -> Tensor:
        past = None if self.opening is None else self.opening.past(token_ids)
        stack = layers(self.model) if self.lean and past is None else None
        if stack is not None:
            inputs = self._inputs(token_ids, lengths)
            embedded = inputs.get("inputs_embeds", self.model.get_input_embeddings()(token_ids)[None])
            return states(self.model, embedded[0], lengths, stack)
        positions = torch.cat([torch.arange(n, device=token_ids.device) for n in lengths])
        given = {} if past is None else {"opening_past": past}
        out = self._decoder()(
            **self._inputs(token_ids, lengths), position_ids=positions[None], attention_mask=None,
            use_cache=False, document_lengths=tuple(lengths), **given,
        )  # fmt: skip
        state: Tensor = out.last_hidden_state[0]
        return state

    def _alone(self, token_ids: Tensor) -> Tensor:
        state: Tensor = self._decoder()(
            **self._inputs(token_ids, (len(token_ids),)), use_cache=False
        ).last_hidden_state[0]
        return state

    def _inputs(self, token_ids: Tensor, lengths: Sequence[int]) -> dict[str, Tensor]:
        if not (self.noise and self.model.training):
            return {"input_ids": token_ids[None]}
        embedded: Tensor = self.model.get_input_embeddings()(token_ids)
        sizes = torch.tensor(lengths, device=token_ids.device)
        most = self.noise * (sizes.repeat_interleave(sizes) * embedded.shape[1]).rsqrt()[:, None]
        noise = torch.empty_like(embedded, dtype=torch.float32).uniform_(-1, 1) * most
        return {"inputs_embeds": (embedded + noise.to(embedded.dtype))[None]}

    def _decoder(self) -> Any:
        return self.model.get_decoder()

    def _probe(self) -> bool:
        """Without dropout, which new adapters have from the start."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            return self._compared()
        finally:
            for module, training in modes:
                module.training = training

    @torch.no_grad()
    def _compared(self) -> bool:
        if getattr(self.model.config.get_text_config(), "sliding_window", None) is not None:
            return False
        lengths = (5, 5, 3)
        ids = torch.arange(sum(lengths), device=self.device) % len(self.model.get_input_embeddings().weight)
        wanted = torch.cat([self._alone(document) for document in _documents(ids, lengths)]).float()
        register()
        self.model.set_attn_implementation(NAME)
        try:
            got = self._packed(ids, lengths).float()
        except (TypeError, ValueError, RuntimeError, AttributeError):
            got = torch.full_like(wanted, float("nan"))
        fits = _close(got, wanted)
        if not fits:
            self.model.set_attn_implementation(self.own)
        elif layers(self.model) is not None:
            self.lean = True
            self.lean = _close(self._packed(ids, lengths).float(), wanted)
        if self.lean:
            stack_weights(self.model)
        return fits

    def release(self) -> None:
        """Give the model its own attention back, as generation with a cache needs it."""
        self.model.set_attn_implementation(self.own)


def fill(lengths: Sequence[int], order: Iterable[int], capacity: int) -> list[list[int]]:
    """Rows taken in `order` into batches of at most `capacity` tokens (one row at least)."""
    batches: list[list[int]] = []
    room = 0
    for row in order:
        size = int(lengths[int(row)])
        if not batches or size > room:
            batches.append([])
            room = capacity
        batches[-1].append(int(row))
        room -= size
    return batches


def _close(got: Tensor, wanted: Tensor) -> bool:
    return bool((got - wanted).norm() <= TOLERANCE * wanted.norm())


def _documents(token_ids: Tensor, lengths: Sequence[int]) -> tuple[Tensor, ...]:
    return token_ids.split(list(lengths))  # type: ignore[no-untyped-call, no-any-return]


def head_logits(model: nn.Module, hidden: Tensor) -> Tensor:
    """(N, D) -> (N, V), by the model's own head with whatever it does to its logits after it."""
    return altered_logits(model.get_output_embeddings()(hidden), model.config)  # type: ignore[operator]


def altered_logits(logits: Tensor, config: Any) -> Tensor:
    """What a model of `config` makes of its head's output."""
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits


def plain_head(model: nn.Module) -> bool:
    """Whether logits are `hidden headᵀ` and nothing more: no bias, no scaling, no soft cap, no adapter."""
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    config: Any = model.config
    altered = ("final_logit_softcapping", "logit_scale", "logits_scaling")
    scaled = any(getattr(config, name, None) not in (None, 1, 1.0) for name in altered)
    return type(head) in (nn.Linear, QuantisedLinear) and head.bias is None and not scaled
