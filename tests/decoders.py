"""Random decoders of other families than the tiny model's, each a Hugging Face directory, for tests."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

from tests.tiny import tiny_model

SHAPE: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "tie_word_embeddings": False, "initializer_range": 0.2,
}  # fmt: skip


def make_decoder(directory: Path, family: str) -> Path:
    """family: `llama` (no biases, heads share keys), `qwen2` (biases of q, k, v), `gpt2` (Conv1D)."""
    import torch

    shutil.copytree(tiny_model(), directory)
    (directory / "model.safetensors").unlink()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = _build(family)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=0.1)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(directory)
    return directory


def _build(family: str) -> Any:
    import transformers

    ends = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    if family == "gpt2":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=400, n_embd=64, n_layer=3, n_head=4, n_positions=256, initializer_range=0.2, **ends
            )
        )
    name = family.capitalize()
    config = getattr(transformers, f"{name}Config")(**SHAPE, **ends)
    return getattr(transformers, f"{name}ForCausalLM")(config)


@functools.cache
def decoder(family: str) -> Path:
    """A directory of the family, made once a process; treat it as read-only."""
    if family == "qwen3":
        return tiny_model()
    return make_decoder(tiny_model().parent / f"{tiny_model().name}-{family}", family)
