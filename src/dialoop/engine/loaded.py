"""A model in memory with all that serving needs of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.engine.generate import context_of
from dialoop.engine.reader import Reader
from dialoop.engine.roster import Known, KnownEncoder
from dialoop.engine.wire import Opened
from dialoop.errors import ModelError
from dialoop.models.adapters import Adapters
from dialoop.models.encoder import is_encoder, load_encoder, positions_of
from dialoop.models.load import default_device, load_model
from dialoop.types import ModelRef, Served


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """Weights, tokenizer and what the catalogue says of them.

    folder: the base's directory.  adapters: beside `model`, which other names share.  adapter: this name's
    own, "" where it is the base.  merged: an adapter is folded into the weights.
    """

    served: Served
    model: torch.nn.Module
    tokenizer: ChatTokenizer
    folder: Path
    adapters: Adapters | None = None
    adapter: str = ""
    merged: bool = False

    @property
    def known(self) -> Known:
        """All but the weights."""
        config: Any = self.model.config
        size = int(config.get_text_config().hidden_size)
        name = self.served.name
        opened = Opened(self.served, name, self.folder, size, self.adapter, self.merged)
        return Known(opened, self.tokenizer)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedEncoder:
    """An encoder in memory: it embeds and does not chat."""

    served: Served
    model: torch.nn.Module
    reader: Reader
    folder: Path

    @property
    def known(self) -> KnownEncoder:
        """All but the weights."""
        opened = Opened(self.served, self.served.name, self.folder, self.reader.size)
        return KnownEncoder(opened, self.reader)


Loaded = LoadedModel | LoadedEncoder


def open_model(ref: ModelRef, *, created: int | None = None, context: int | None = None) -> LoadedModel:
    """Load `ref` for answering, its adapter folded in.

    created: Unix seconds, None = now.  context: tokens, None or more than the model has = the model's own.
    On a CPU the weights are fp32: bf16 rounds differently in batches of different sizes.
    """
    model = load_model(ref, dtype=_dtype(), merge=True)
    longest = context_of(model)
    served = Served(
        name=ref.name,
        created=int(time.time()) if created is None else created,
        context=min(context or longest, longest),
    )
    tokenizer = ChatTokenizer.load(ref.base)
    return LoadedModel(served, model, tokenizer, ref.base, merged=ref.adapter is not None)


def open_encoder(ref: ModelRef, *, context: int | None = None) -> LoadedEncoder:
    """Load an encoder; context as for `open_model`. Raises ModelError for an adapter too."""
    if ref.adapter is not None:
        raise ModelError(f"{ref.adapter}: lies on an encoder, which takes no adapters: merge it first")
    model = load_encoder(ref.base, dtype=_dtype())
    longest = positions_of(model)
    config: Any = model.config
    reader = Reader.load(ref.base, min(context or longest, longest), int(config.hidden_size))
    served = Served(name=ref.name, created=int(time.time()), context=reader.context, kind="encoder")
    return LoadedEncoder(served, model, reader, ref.base)


def _dtype() -> torch.dtype | None:
    return torch.float32 if default_device() == "cpu" else None


def open_models(refs: Sequence[ModelRef], *, context: int | None = None) -> dict[str, Loaded]:
    """All of `refs` by their names; those of one base share it where their adapters can stand beside it."""
    opened: dict[str, Loaded] = {}
    for base in dict.fromkeys(ref.base.resolve() for ref in refs):
        family = [ref for ref in refs if ref.base.resolve() == base]
        if is_encoder(base):
            opened |= {ref.name: open_encoder(ref, context=context) for ref in family}
            continue
        shared = _beside_one_base(family, context) if len(family) > 1 else None
        opened |= shared or {ref.name: open_model(ref, context=context) for ref in family}
    return {ref.name: opened[ref.name] for ref in refs}


def _beside_one_base(family: Sequence[ModelRef], context: int | None) -> dict[str, LoadedModel] | None:
    """None where an adapter changes more than it may here: then each is merged into a base of its own."""
    alone = open_model(replace(family[0], adapter=None), context=context)
    adapters = Adapters(alone.model)
    try:
        for ref in family:
            if ref.adapter is not None:
                adapters.add(ref.name, adapters.read(ref.adapter))
    except ModelError:
        return None
    return {
        ref.name: replace(
            alone, served=replace(alone.served, name=ref.name), adapters=adapters,
            adapter="" if ref.adapter is None else ref.name,
        )
        for ref in family
    }  # fmt: skip
