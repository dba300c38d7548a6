"""Prompt tuning, prefix tuning and P-tuning v2: what is learnt stands before every text; the base is frozen.

Written as peft writes them. They cannot be folded into the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import Parameter

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import PrefixMethod, PromptMethod, PTuningV2Method
from dialoop.errors import ModelError, echo
from dialoop.models.adapter_files import CONFIG, WEIGHTS
from dialoop.models.opening import Opening, PrefixOpening, PromptOpening
from dialoop.models.weights import check_adapter, read_json
from dialoop.models.wrapped import refuse_adapter
from dialoop.types import ModelRef

PROMPT, PREFIX = "PROMPT_TUNING", "PREFIX_TUNING"
SOFT_TYPES = frozenset({PROMPT, PREFIX})
TENSOR = "prompt_embeddings"


@dataclass(frozen=True)
class PromptTuning:
    """The method `prompt` (Lester et al. 2021)."""

    settings: PromptMethod

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> OpenedModel:
        words = _begin(model, base, seed)
        opening = PromptOpening(words, _first_prompt(words, base, self.settings))
        return _opened(model, base, opening, PROMPT)


@dataclass(frozen=True)
class PrefixTuning:
    """The methods `prefix` (Li and Liang 2021) and `p-tuning-v2` (Liu et al. 2021).

    The first learns a network that makes the keys and values, and begins at random; the second these
    themselves, and begins at those of tokens drawn from the vocabulary: Li and Liang's best beginning.
    """

    settings: PrefixMethod | PTuningV2Method

    def attach(self, model: nn.Module, base: ModelRef, *, seed: int) -> OpenedModel:
        from peft import PrefixTuningConfig
        from peft.tuners.prefix_tuning import PrefixEncoder

        words = _begin(model, base, seed)
        config = PrefixTuningConfig(
            **_shape(model, PREFIX), num_virtual_tokens=self.settings.tokens,
            prefix_projection=isinstance(self.settings, PrefixMethod),
            encoder_hidden_size=getattr(self.settings, "hidden", None),  # type: ignore[arg-type]
        )  # fmt: skip
        encoder: Any = PrefixEncoder(config).to(words.weight)  # type: ignore[no-untyped-call]
        if isinstance(self.settings, PTuningV2Method):
            encoder.embedding.weight.data.copy_(_activations(model, words, self.settings.tokens))
        return _opened(model, base, _prefix(model, words, encoder, self.settings.tokens), PREFIX)


def _begin(model: nn.Module, base: ModelRef, seed: int) -> Any:
    """The model's embedding; the model is frozen, chance seeded."""
    from dialoop.models.encoder import is_encoder

    refuse_adapter(base)
    if is_encoder(base.base):
        raise ModelError(
            f"{base.name} is an encoder, which has no place for a soft prompt here: use lora, ia3, "
            f"bottleneck, bitfit, freeze or full"
        )
    model.requires_grad_(False)
    torch.manual_seed(seed)
    return model.get_input_embeddings()  # type: ignore[operator]


@torch.no_grad()
def _first_prompt(words: Any, base: ModelRef, settings: PromptMethod) -> Tensor:
    """(n, D)."""
    weight: Tensor = words.weight
    if settings.init == "random":
        # nn.Embedding's own beginning, as peft has it, would be far longer than the vocabulary's vectors.
        return (torch.randn(settings.tokens, weight.shape[1]) * weight.float().std().cpu()).to(weight)
    ids = torch.randint(0, len(weight), (settings.tokens,))
    if settings.init == "text":
        told = ChatTokenizer.load(base.base).encode(settings.text)
        ids = torch.tensor([told[i % len(told)] for i in range(settings.tokens)])
    first: Tensor = words(ids.to(weight.device)).clone()
    return first


@torch.no_grad()
def _activations(model: Any, words: Any, count: int) -> Tensor:
    """(n, layers · 2 · heads · size): keys and values of tokens drawn from the vocabulary."""
    ids = torch.randint(0, words.num_embeddings, (1, count), device=words.weight.device)
    cache = model(input_ids=ids, use_cache=True).past_key_values
    parts = [
        part[0].transpose(0, 1).flatten(1) for layer in cache.layers for part in (layer.keys, layer.values)
    ]
    return torch.cat(parts, dim=1)


def _shape(model: nn.Module, kind: str) -> dict[str, Any]:
    """What a peft config says of the model; peft cannot work out all of them where heads share keys."""
    whole: Any = model.config
    config = whole.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    if kind == PREFIX:
        heads = getattr(config, "num_key_value_heads", None) or heads
    width = heads * size if kind == PREFIX else config.hidden_size
    return {
        "task_type": "CAUSAL_LM", "num_layers": config.num_hidden_layers, "num_attention_heads": heads,
        "token_dim": width, "num_transformer_submodules": 1,
    }  # fmt: skip


def _prefix(model: nn.Module, words: nn.Module, encoder: nn.Module, count: int) -> PrefixOpening:
    shape = _shape(model, PREFIX)
    heads = shape["num_attention_heads"]
    return PrefixOpening(words, encoder, count, heads, shape["token_dim"] // heads)


def _opened(model: Any, base: ModelRef, opening: Opening, kind: str) -> OpenedModel:
    model.set_input_embeddings(opening)
    return OpenedModel(model, base, opening, kind)


def load_soft_prompt(model: Any, folder: Path) -> nn.Module:
    """`model` opened by the soft prompt in a PEFT directory. Raises ModelError where it does not fit."""
    opening, _ = _read(model, folder)
    model.set_input_embeddings(opening.requires_grad_(False))
    loaded: nn.Module = model
    return loaded


def continue_soft_prompt(model: Any, folder: Path, base: ModelRef) -> OpenedModel:
    """The same, to be trained on; of a prefix the keys and values themselves, its network being gone."""
    opening, kind = _read(model, folder)
    model.requires_grad_(False)
    learnt = opening.prompt if isinstance(opening, PromptOpening) else opening.encoder
    learnt.requires_grad_(True)
    return _opened(model, base, opening, kind)


def _read(model: Any, folder: Path) -> tuple[PromptOpening | PrefixOpening, str]:
    """What a PEFT directory puts before texts, and its kind."""
    config = read_json(folder / CONFIG)
    kind, count = config["peft_type"], config.get("num_virtual_tokens")
    flat = load_file(check_adapter(folder)).get(TENSOR)
    shape, words = _shape(model, kind), model.get_input_embeddings()
    width = shape["token_dim"] * (2 * shape["num_layers"] if kind == PREFIX else 1)
    if flat is None or flat.shape != (count, width):
        found = None if flat is None else tuple(flat.shape)
        raise ModelError(
            f"{folder}: {TENSOR} is {found}, expected {echo(count)} x {width}: use the base that it was "
            f"trained on"
        )
    flat = flat.to(words.weight)
    if kind == PROMPT:
        return PromptOpening(words, flat), kind
    return _prefix(model, words, nn.Embedding.from_pretrained(flat), len(flat)), kind  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class OpenedModel:
    """A frozen base whose texts are opened by what is trained."""

    model: nn.Module
    base: ModelRef
    opening: Opening
    kind: str

    @property
    def weights(self) -> Mapping[str, Parameter]:
        """The prompt, the prefix, or the network that makes it."""
        return {name: weight for name, weight in self.opening.named_parameters() if weight.requires_grad}

    @torch.no_grad()
    def save(self, folder: Path) -> ModelRef:
        """adapter_config.json and adapter_model.safetensors, as peft reads them; the network is left out."""
        from peft import PrefixTuningConfig, PromptTuningConfig

        made: Any = PromptTuningConfig if self.kind == PROMPT else PrefixTuningConfig
        config = made(
            **_shape(self.model, self.kind), num_virtual_tokens=self.opening.count, inference_mode=True,
            base_model_name_or_path=self.base.name,
        )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(folder)
        tensor = self.opening.flat.detach().cpu().contiguous()
        save_file({TENSOR: tensor}, folder / WEIGHTS, metadata={"format": "pt"})
        return ModelRef(self.base.name, self.base.base, folder)
