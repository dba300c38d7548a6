"""A model in memory with all that serving needs of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.engine.generate import context_of
from dialoop.models.load import default_device, load_model
from dialoop.types import ModelRef, Served


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """Weights, tokenizer and what the catalogue says of them."""

    served: Served
    model: torch.nn.Module
    tokenizer: ChatTokenizer


def open_model(ref: ModelRef, *, created: int | None = None, context: int | None = None) -> LoadedModel:
    """Load `ref` for answering, its adapter folded in.

    created: Unix seconds, None = now.  context: tokens, None or more than the model has = the model's own.
    On a CPU the weights are fp32: bf16 rounds differently in batches of different sizes.
    """
    dtype = torch.float32 if default_device() == "cpu" else None
    model = load_model(ref, dtype=dtype, merge=True)
    longest = context_of(model)
    served = Served(
        name=ref.name,
        created=int(time.time()) if created is None else created,
        context=min(context or longest, longest),
    )
    return LoadedModel(served, model, ChatTokenizer.load(ref.base))
