"""The lean decoder writes directories whose logits are those of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dialoop.config import ArchitectureSettings
from dialoop.models.decoder import Decoder, write_decoder
from dialoop.models.load import load_model
from dialoop.types import ModelRef

LENGTHS = (7, 3, 11)
IDS = torch.arange(sum(LENGTHS)) * 13 % 300


def decoder(family: str, seed: int = 0) -> Decoder:
    shape = ArchitectureSettings.model_validate(
        {"family": family, "hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "mlp": 96, "context": 128}
    )
    made = Decoder(shape, 300, seed=seed).bfloat16().float()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.mul_(8.0 if weight.ndim == 2 else 1.0)
            if "norm" in name:
                weight.add_(torch.arange(len(weight)) / len(weight)).copy_(weight.bfloat16())
    return made


@pytest.mark.parametrize(("family", "kind"), [("qwen3", "Qwen3ForCausalLM"), ("llama", "LlamaForCausalLM")])
def test_transformers_computes_the_same_logits_from_the_written_directory(
    family: str, kind: str, tmp_path: Path
) -> None:
    made = decoder(family)
    write_decoder(made, tmp_path, eos_id=2, pad_id=1)
    model = load_model(ModelRef("written", tmp_path), dtype=torch.float32, device="cpu")
    assert type(model).__name__ == kind
    with torch.no_grad():
        got = made(IDS, LENGTHS) @ made.head.t()
        wanted = [model(document[None]).logits[0] for document in IDS.split(list(LENGTHS))]
    assert got.std() > 0.3
    torch.testing.assert_close(got, torch.cat(wanted), atol=2e-4, rtol=2e-4)


def test_a_packed_row_gives_each_document_what_it_gets_alone() -> None:
    made = decoder("qwen3")
    with torch.no_grad():
        alone = [made(document, (len(document),)) for document in IDS.split(list(LENGTHS))]
        torch.testing.assert_close(made(IDS, LENGTHS), torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_seed_alone_decides_the_first_weights() -> None:
    first, again, other = (decoder("qwen3", seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_weights_are_written_in_bf16_and_the_tied_head_once(tmp_path: Path) -> None:
    write_decoder(decoder("llama"), tmp_path, eos_id=2, pad_id=1)
    weights = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in weights
