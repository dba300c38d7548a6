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
from dialoop.engine.roster import Known, KnownEncoder, KnownHead
from dialoop.engine.wire import Opened
from dialoop.errors import ModelError
from dialoop.models.adapters import Adapters
from dialoop.models.crf import Crf
from dialoop.models.encoder import is_encoder, load_encoder, positions_of
from dialoop.models.head_config import head_kind, kind_of, labels_of
from dialoop.models.heads import Headed, load_crf, load_headed
from dialoop.models.load import default_device, load_model, stored_dtype
from dialoop.models.opening import opening_ids
from dialoop.types import ModelRef, Precision, Served


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """Weights, tokenizer and what the catalogue says of them.

    folder: the base's directory.  adapters: beside `model`, which other names share.  adapter: this name's
    own, "" where it is the base.  merged: an adapter is folded into the weights.
    precision: that the weights are to be packed to by the engine; None = they stay as they are.
    """

    served: Served
    model: torch.nn.Module
    tokenizer: ChatTokenizer
    folder: Path
    adapters: Adapters | None = None
    adapter: str = ""
    merged: bool = False
    precision: Precision | None = None

    @property
    def opening(self) -> tuple[int, ...]:
        """Virtual tokens before every text."""
        return opening_ids(self.model)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.served.context + len(self.opening)

    @property
    def known(self) -> Known:
        """All but the weights."""
        config: Any = self.model.config
        size = int(config.get_text_config().hidden_size)
        name = self.served.name
        opened = Opened(
            self.served, name, self.folder, size, self.adapter, self.merged, opened=bool(self.opening)
        )
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


@dataclass(frozen=True, slots=True, eq=False)
class LoadedHead:
    """A model with a head in memory: it classifies, scores how well answers fit, or tags words."""

    served: Served
    headed: Headed
    reader: Reader
    labels: tuple[str, ...]
    folder: Path
    crf: Crf | None = None

    @property
    def model(self) -> torch.nn.Module:
        """transformers' own."""
        return self.headed.whole  # type: ignore[no-any-return]

    @property
    def known(self) -> KnownHead:
        """All but the weights."""
        opened = Opened(self.served, self.served.name, self.folder, self.reader.size)
        return KnownHead(opened, self.reader, self.labels)


Loaded = LoadedModel | LoadedEncoder | LoadedHead


def open_model(
    ref: ModelRef,
    *,
    created: int | None = None,
    context: int | None = None,
    precision: Precision | None = None,
) -> LoadedModel:
    """Load `ref` for answering, its adapter folded in.

    created: Unix seconds, None = now.  context: tokens, None or more than the model has = the model's own.
    precision: for an engine, which packs the weights; None = fp32 on a CPU: bf16 would round differently in
    batches of different sizes.
    """
    dtype = None
    if default_device() == "cpu":
        exact = precision in (None, "float32") or ref.adapter is not None
        dtype = torch.float32 if exact else stored_dtype(ref.base)
    model = load_model(ref, dtype=dtype, merge=True)
    longest = context_of(model)
    served = Served(
        name=ref.name,
        created=int(time.time()) if created is None else created,
        context=min(context or longest, longest),
    )
    tokenizer = ChatTokenizer.load(ref.base)
    merged = ref.adapter is not None
    return LoadedModel(served, model, tokenizer, ref.base, merged=merged, precision=precision)


def open_encoder(ref: ModelRef, *, context: int | None = None) -> LoadedEncoder:
    """Load an encoder; context as for `open_model`. Raises ModelError for an adapter too."""
    if ref.adapter is not None:
        raise ModelError(f"{ref.adapter}: lies on an encoder, which takes no adapters: merge it first")
    model = load_encoder(ref.base, dtype=torch.float32 if default_device() == "cpu" else None)
    longest = positions_of(model)
    config: Any = model.config
    reader = Reader.load(ref.base, min(context or longest, longest), int(config.hidden_size))
    served = Served(name=ref.name, created=int(time.time()), context=reader.context, kind="encoder")
    return LoadedEncoder(served, model, reader, ref.base)


def open_head(ref: ModelRef, *, context: int | None = None) -> LoadedHead:
    """Load a model with a head; context as for `open_model`. Raises ModelError for others."""
    if ref.adapter is not None:
        raise ModelError(f"{ref.adapter}: lies on a model with a head, which takes none: merge it first")
    model = load_headed(ref.base, dtype=torch.float32 if default_device() == "cpu" else None)
    longest = positions_of(model) if is_encoder(ref.base) else context_of(model)
    longest -= len(opening_ids(model))
    config: Any = model.config
    size = int(config.get_text_config().hidden_size)
    reader, labels = Reader.load(ref.base, min(context or longest, longest), size), labels_of(ref.base)
    served = Served(ref.name, int(time.time()), reader.context, kind=kind_of(ref.base))
    return LoadedHead(served, Headed(model, ref.base), reader, labels, ref.base, load_crf(ref.base))


def open_models(
    refs: Sequence[ModelRef], *, context: int | None = None, precision: Precision | None = None
) -> dict[str, Loaded]:
    """All of `refs` by their names, for an engine; those of one base share it where their adapters can stand
    beside it.

    precision: of a decoder's weights; None = 16 bits where the files hold no more.
    """
    opened: dict[str, Loaded] = {}
    for base in dict.fromkeys(ref.base.resolve() for ref in refs):
        family = [ref for ref in refs if ref.base.resolve() == base]
        if head_kind(base) is not None:
            opened |= {ref.name: open_head(ref, context=context) for ref in family}
            continue
        if is_encoder(base):
            opened |= {ref.name: open_encoder(ref, context=context) for ref in family}
            continue
        packed = precision or _stored_precision(base)
        shared = _beside_one_base(family, context, packed) if len(family) > 1 else None
        opened |= shared or {ref.name: open_model(ref, context=context, precision=packed) for ref in family}
    return {ref.name: opened[ref.name] for ref in refs}


def _stored_precision(base: Path) -> Precision:
    return "half" if stored_dtype(base) in (torch.bfloat16, torch.float16) else "float32"


def _beside_one_base(
    family: Sequence[ModelRef], context: int | None, precision: Precision
) -> dict[str, LoadedModel] | None:
    """None where an adapter changes more than it may here: then each is merged into a base of its own."""
    alone = open_model(replace(family[0], adapter=None), context=context, precision=precision)
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
