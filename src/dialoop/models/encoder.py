"""BERT-style encoders: texts in, hidden states out, every token seeing all of its text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dialoop.models.load import default_device, default_dtype
from dialoop.models.pretrained import from_pretrained, refuse_missing
from dialoop.models.weights import check_weights, read_json

SHORT = 256
"""Tokens of rows up to which plain products of matrices learn faster on a CPU.

torch's fused attention reads 64 queries at a time, and its backward takes many times as long as its forward:
a step of a ModernBERT took 1.6 times as long on rows of 16 tokens, 1.3 times of 64, 1.2 times of 256.
"""


def is_encoder(folder: Path) -> bool:
    """Whether config.json describes a bidirectional encoder; a directory without one is none."""
    if not (folder / "config.json").is_file():
        return False
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    config = read_json(folder / "config.json")
    kind, held = config.get("model_type"), (config.get("architectures") or [None])[0]
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) if isinstance(kind, str) else None
    both_ways = not config.get("is_decoder") and not config.get("is_encoder_decoder")
    return kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and both_ways and (held is None or held != causal)


def load_encoder(
    folder: Path, *, dtype: torch.dtype | None = None, device: str | None = None
) -> torch.nn.Module:
    """In eval mode, without heads. Raises ModelError where files are missing or damaged."""
    from transformers import AutoModel

    device = device or default_device()
    check_weights(folder)
    model, missing = from_pretrained(AutoModel, folder, dtype or default_dtype(device))
    # The pooler is a head for classification: hidden states go around it.
    refuse_missing(folder, [name for name in missing if not name.startswith("pooler.")])
    encoder: nn.Module = model.to(device).eval()
    return encoder


def positions_of(model: nn.Module) -> int:
    """The longest text, in tokens; RoBERTa's positions begin after that of its padding."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    config: Any = model.config
    return int(config.max_position_embeddings)


def attend_for_training(model: Any, longest: int) -> None:
    """Have an encoder attend as is fastest where it learns from rows of at most so many tokens."""
    if model.device.type == "cpu" and longest <= SHORT:
        model.set_attn_implementation("eager")


@torch.inference_mode()
def encode(model: nn.Module, texts: Sequence[Sequence[int]]) -> Tensor:
    """(T, D): the last hidden states of all texts, one after the other; read as one padded batch."""
    config: Any = model.config
    device = next(model.parameters()).device
    ids, mask = padded([torch.tensor(text, device=device) for text in texts], config.pad_token_id or 0)
    hidden: Tensor = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return hidden[mask]


def padded(rows: Sequence[Tensor], padding: int) -> tuple[Tensor, Tensor]:
    """Texts (L,) as ids (N, longest), and which of them are real."""
    ids = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=padding)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    return ids, torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
