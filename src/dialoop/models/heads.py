"""Models with a classification head, in transformers' own layout, so that its Auto classes load them.

A decoder is read in packed rows and its last token pooled; an encoder in padded batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dialoop.chat.plain import TextTokenizer
from dialoop.errors import ModelError, echo
from dialoop.models.crf import Crf
from dialoop.models.encoder import is_encoder, padded
from dialoop.models.head_config import CLASSES, HeadKind, head_kind, labels_of
from dialoop.models.load import add_adapter, default_device, default_dtype
from dialoop.models.packed import PackedBody
from dialoop.models.pretrained import from_pretrained, refuse_missing
from dialoop.models.weights import check_weights, read_json

ADAPTER = "adapter"
"""The folder inside a head's directory for what no weight can hold: soft prompts, bottleneck adapters."""
CRF_FILE = "crf.safetensors"
CUT_STEPS = 2048


def new_head(
    folder: Path,
    kind: HeadKind,
    labels: Sequence[str],
    *,
    seed: int,
    dropout: float | None = None,
    **where: Any,
) -> nn.Module:
    """The base in `folder` with a new head, drawn from `seed`. Raises ModelError.

    dropout: of its layers that have one; None leaves them as they are.
    where: dtype and device, as for `load_model`.
    """
    _check_base(folder, kind)
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    model, missing = _load(folder, kind, where, num_labels=len(labels), **names, ignore_mismatched_sizes=True)
    body = {id(weight) for weight in model.base_model.parameters()}
    named = dict(model.named_parameters())
    lost = [name for name in missing if name in named and id(named[name]) in body and "pooler." not in name]
    refuse_missing(folder, lost)
    if model.config.get_text_config().pad_token_id is None:
        model.config.pad_token_id = _padding(folder)
    whole: nn.Module = model
    if dropout is not None:
        _set_dropout(folder, whole, dropout)
    return whole


def _set_dropout(folder: Path, whole: nn.Module, share: float) -> None:
    layers = [layer for layer in whole.modules() if isinstance(layer, nn.Dropout)]
    if not layers:
        raise ModelError(
            f"{folder}: has no layer with a dropout: leave regularisation.dropout out, or use an encoder"
        )
    for layer in layers:
        layer.p = share


def load_headed(folder: Path, **where: Any) -> nn.Module:
    """A model with its head, in eval mode, its adapter attached where it has one. Raises ModelError."""
    kind = head_kind(folder)
    if kind is None:
        raise ModelError(f"{folder}: has no classification head: train one with a recipe of kind classify")
    model, missing = _load(folder, kind, where)
    refuse_missing(folder, missing)
    if (folder / ADAPTER).is_dir():
        add_adapter(model.base_model, folder / ADAPTER, merge=True)
    headed: nn.Module = model.eval()
    return headed


def load_crf(folder: Path) -> Crf | None:
    """The CRF beside a head, where it has one."""
    if not (folder / CRF_FILE).is_file():
        return None
    crf = Crf(len(labels_of(folder)))
    crf.load_state_dict(load_file(folder / CRF_FILE))
    return crf.eval()


def save_crf(crf: Crf, folder: Path) -> None:
    """Beside the head; transformers does not look for it."""
    save_file({name: weight.detach().cpu() for name, weight in crf.state_dict().items()}, folder / CRF_FILE)


def _check_base(folder: Path, kind: HeadKind) -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    )

    known = {
        "sequence": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "token": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    }
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds no config.json: give a Hugging Face model directory")
    held = read_json(folder / "config.json").get("model_type")
    if held not in known[kind]:
        raise ModelError(
            f"{folder}: transformers has no {CLASSES[kind]} for model_type {echo(held)}: use another base, "
            f"such as a BERT, a ModernBERT, a Llama or a Qwen3"
        )


def _load(folder: Path, kind: HeadKind, where: dict[str, Any], **config: Any) -> tuple[Any, list[str]]:
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    check_weights(folder)
    classes: dict[HeadKind, Any] = {
        "sequence": AutoModelForSequenceClassification,
        "token": AutoModelForTokenClassification,
    }
    device = where.get("device") or default_device()
    model, missing = from_pretrained(
        classes[kind], folder, where.get("dtype") or default_dtype(device), **config
    )
    return model.to(device), missing


def _padding(folder: Path) -> int:
    """A token that pads: without one, transformers reads a decoder's rows one by one."""
    path = folder / "tokenizer_config.json"
    described = read_json(path) if path.is_file() else {}
    named = described.get("pad_token") or described.get("eos_token")
    name = named.get("content") if isinstance(named, dict) else named
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: int(token["id"]) for token in vocabulary.get("added_tokens") or []}
    return added.get(str(name), 0)


class Headed:
    """`logits(token_ids (T,), lengths)`: (documents, classes) of a sequence head, (T, classes) of another.

    whole: transformers' model, as `new_head` or `load_headed` give it.
    """

    def __init__(self, whole: nn.Module, folder: Path) -> None:
        self.whole: Any = whole
        self.kind: HeadKind = "token" if type(whole).__name__.endswith(CLASSES["token"]) else "sequence"
        encoder = is_encoder(folder)
        self._packed = None if encoder else PackedBody(whole)
        self._separator = _separator(whole, folder) if encoder else None

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self.whole.parameters()).device
        return device

    @property
    def pads(self) -> bool:
        """Whether a batch costs as much as its longest row times its rows."""
        return self._packed is None

    def logits(self, token_ids: Tensor, lengths: Sequence[int]) -> Tensor:
        if self._packed is None:
            return self._of_encoder(token_ids, lengths).float()
        hidden = self._packed.hidden(token_ids, lengths)
        if self.kind == "sequence":
            hidden = hidden[torch.tensor(lengths, device=hidden.device).cumsum(0) - 1]
        elif (dropout := getattr(self.whole, "dropout", None)) is not None:
            hidden = dropout(hidden)
        head = self.whole.score if hasattr(self.whole, "score") else self.whole.classifier
        scores: Tensor = head(hidden)
        return scores.float()

    def _of_encoder(self, token_ids: Tensor, lengths: Sequence[int]) -> Tensor:
        rows = token_ids.split(list(lengths))  # type: ignore[no-untyped-call]
        ids, mask = padded(rows, self.whole.config.pad_token_id or 0)
        given = {} if self._separator is None else {"token_type_ids": _types(ids, self._separator)}
        scores: Tensor = self.whole(input_ids=ids, attention_mask=mask.long(), **given).logits
        return scores if self.kind == "sequence" else scores[mask]

    def release(self) -> None:
        """Give a decoder its own attention back."""
        if self._packed is not None:
            self._packed.release()


def _separator(whole: Any, folder: Path) -> int | None:
    """The token after which a BERT's second text begins, where its two texts have types."""
    if getattr(whole.config, "type_vocab_size", 0) < 2:
        return None
    return TextTokenizer(folder).frame([], [])[-1]


def _types(ids: Tensor, separator: int) -> Tensor:
    """0 up to the first separator, 1 after it, as a BERT's tokenizer writes them."""
    ends = (ids == separator).long()
    return ((ends.cumsum(1) - ends) > 0).long()


def by_length(lengths: Sequence[int], order: Iterable[int], capacity: int) -> list[list[int]]:
    """Rows in batches whose padded area is at most `capacity` (one row at least), the shortest first."""
    batches: list[list[int]] = []
    for row in sorted(order, key=lambda i: lengths[i]):
        if not batches or (len(batches[-1]) + 1) * lengths[row] > capacity:
            batches.append([])
        batches[-1].append(row)
    return batches


@torch.inference_mode()
def scores_of(headed: Headed, texts: Sequence[Sequence[int]], step_tokens: int = CUT_STEPS) -> list[Tensor]:
    """The logits of each text, on the CPU: (classes,), or (tokens, classes) of a token head."""
    found: dict[int, Tensor] = {}
    lengths = [len(text) for text in texts]
    for batch in by_length(lengths, range(len(texts)), step_tokens):
        ids = torch.tensor([token for i in batch for token in texts[i]], device=headed.device)
        logits = headed.logits(ids, [lengths[i] for i in batch]).cpu()
        sizes = [1] * len(batch) if headed.kind == "sequence" else [lengths[i] for i in batch]
        parts = logits.split(sizes)  # type: ignore[no-untyped-call]
        found |= zip(batch, (p[0] if headed.kind == "sequence" else p for p in parts), strict=True)
    return [found[i] for i in range(len(texts))]


def class_logits(logits: Tensor) -> Tensor:
    """(N, classes), the one number of a scorer as the logits of `does not fit` and `fits`."""
    return torch.cat([torch.zeros_like(logits), logits], -1) if logits.shape[-1] == 1 else logits
