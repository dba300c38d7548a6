"""A base with a head, trained by any method: the head itself always, of the rest what the method says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from dialoop.config import BottleneckMethod, FreezeMethod, FullMethod, MethodSettings
from dialoop.models.crf import Crf
from dialoop.models.full import TOKENIZER_FILES
from dialoop.models.head_config import HeadKind
from dialoop.models.heads import ADAPTER, new_head, save_crf
from dialoop.models.load import add_adapter, load_model, refuse_unmergeable
from dialoop.models.method import Attached, method_of
from dialoop.models.opening import opening_of
from dialoop.models.quantised import quantise_frozen
from dialoop.types import ModelRef

BODY, HEAD, CRF = "body.", "head.", "crf."
"""Prefixes of the trained weights' names."""


@dataclass(frozen=True)
class HeadedModel:
    """What is trained, and how it is written. Implements `dialoop.models.method.Attached`.

    model: transformers', its head new.  attached: its body, made ready by the method.
    """

    model: nn.Module
    attached: Attached
    base: ModelRef
    kind: HeadKind
    labels: tuple[str, ...]
    settings: MethodSettings
    crf: Crf | None = None

    @property
    def weights(self) -> Mapping[str, Parameter]:
        """Of the body, of the head and of the CRF."""
        with pooler_aside(self.model):
            named = {BODY + name: weight for name, weight in self.attached.weights.items()}
        named |= {HEAD + name: weight for name, weight in head_weights(self.model).items()}
        return named | {CRF + name: weight for name, weight in (self.crf or nn.Module()).named_parameters()}

    def save(self, folder: Path) -> ModelRef:
        """A directory that transformers' Auto classes load; what no weight can hold lies in `adapter`."""
        folder.mkdir(parents=True, exist_ok=True)
        model: Any = self.model
        if not isinstance(self.settings, FullMethod | FreezeMethod):
            model = self._with_tuned_body(folder / ADAPTER)
        model.save_pretrained(folder)
        for name in TOKENIZER_FILES:
            if (self.base.base / name).is_file():
                shutil.copyfile(self.base.base / name, folder / name)
        if self.crf is not None:
            save_crf(self.crf, folder)
        return ModelRef(self.base.name, folder)

    @torch.no_grad()
    def _with_tuned_body(self, adapter: Path) -> nn.Module:
        """A fresh copy of the base, in fp32, with what was trained put in, as far as weights can hold it."""
        self.attached.save(adapter)
        fresh = _over(self.base, self.kind, self.labels, seed=0, dtype=torch.float32, device="cpu")
        held = dict(fresh.named_parameters())
        for name, weight in head_weights(self.model).items():
            held[name].copy_(weight)
        if not (isinstance(self.settings, BottleneckMethod) or opening_of(self.attached.model)):
            with pooler_aside(fresh):
                add_adapter(fresh.base_model, adapter, merge=True)
            shutil.rmtree(adapter)
        return fresh


def attach_head(
    base: ModelRef,
    kind: HeadKind,
    labels: Sequence[str],
    settings: MethodSettings,
    *,
    seed: int,
    crf: bool = False,
    dropout: float | None = None,
    dtype: torch.dtype | None = None,
) -> HeadedModel:
    """The base with a new head, and with what the method adds to it; dropout as for `new_head`, dtype as for
    `load_model`.

    Raises ModelError.
    """
    whole = _over(base, kind, labels, seed=seed, dropout=dropout, dtype=dtype)
    with pooler_aside(whole):
        body: Any = whole.base_model
        attached = method_of(settings).attach(body, replace(base, adapter=None), seed=seed)
        if not isinstance(settings, FullMethod | FreezeMethod):
            quantise_frozen(attached.model, settings.base_precision, attached.weights.values())
    for weight in head_weights(whole).values():
        weight.requires_grad_(True)
    chain = Crf(len(labels)).to(next(whole.parameters()).device) if crf else None
    return HeadedModel(whole, attached, base, kind, tuple(labels), settings, chain)


def _over(
    base: ModelRef, kind: HeadKind, labels: Sequence[str], *,
    seed: int, dropout: float | None = None, **where: Any,
) -> nn.Module:  # fmt: skip
    """The base, its adapter folded in where it has one, with a new head.

    dropout: as for `new_head`; where: as for `load_model`.
    """
    whole: Any = new_head(base.base, kind, labels, seed=seed, dropout=dropout, **where)
    if base.adapter is not None:
        refuse_unmergeable(base, "train the head on the model below it")
        tuned: Any = load_model(base, merge=True, **where)
        whole.base_model.load_state_dict(tuned.base_model.state_dict())
    return whole  # type: ignore[no-any-return]


def head_weights(whole: nn.Module) -> dict[str, Parameter]:
    """What a base does not bring: the head, and a BERT's pooler, by their names in the whole."""
    model: Any = whole
    with pooler_aside(whole):
        body = {id(weight) for weight in model.base_model.parameters()}
    return {name: weight for name, weight in whole.named_parameters() if id(weight) not in body}


@contextmanager
def pooler_aside(whole: nn.Module) -> Iterator[None]:
    """While it lasts, the body has no pooler: that belongs to the head, and methods leave it alone."""
    body: Any = whole.base_model
    pooler = getattr(body, "pooler", None)
    if pooler is not None:
        body.pooler = None
    try:
        yield
    finally:
        if pooler is not None:
            body.pooler = pooler
