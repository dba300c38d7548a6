"""Exports compute what the model computes."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file
from transformers import AutoTokenizer

from dialoop.errors import ModelError
from dialoop.models.export import export_adapter, export_merged
from dialoop.models.gguf import export_gguf, interleave_halves
from dialoop.models.load import load_model
from dialoop.types import ModelRef
from tests.models.test_load import edit, logits
from tests.tiny import make_tiny_model, tiny_model


def test_a_merged_directory_computes_what_the_adapter_computes(tuned: ModelRef, tmp_path: Path) -> None:
    merged = export_merged(tuned, tmp_path / "merged")
    torch.testing.assert_close(logits(ModelRef("merged", merged)), logits(tuned), atol=1e-4, rtol=1e-4)


def test_a_merged_bf16_directory_is_within_the_rounding_of_bf16(tuned: ModelRef, tmp_path: Path) -> None:
    merged = export_merged(tuned, tmp_path / "merged", dtype=torch.bfloat16)
    weights = load_file(merged / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    exact = load_model(tuned, dtype=torch.float32, device="cpu", merge=True).state_dict()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor.float(), exact[name], rtol=2**-8, atol=1e-30)


def test_a_merged_directory_has_all_that_serving_needs(tuned: ModelRef, tmp_path: Path) -> None:
    merged = export_merged(tuned, tmp_path / "merged", card={"data": "ab12"})
    names = {path.name for path in merged.iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                     "tokenizer_config.json", "chat_template.jinja", "README.md"}  # fmt: skip
    card = (merged / "README.md").read_text(encoding="utf-8")
    assert all(fact in card for fact in ("| data | ab12 |", "| method | LORA |", "| rank | 4 |"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_licence_of_the_base_stays_with_what_is_made_of_it(tuned: ModelRef, tmp_path: Path) -> None:
    base = Path(copytree(tiny_model(), tmp_path / "base"))
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# base\n")
    for out in (export_merged(ModelRef("base", base), tmp_path / "m"),
                export_adapter(ModelRef("t", base, tuned.adapter), tmp_path / "a")):  # fmt: skip
        assert "\nlicense: apache-2.0\n" in (out / "README.md").read_text()


def test_transformers_renders_dialogues_from_a_merged_directory(tuned: ModelRef, tmp_path: Path) -> None:
    merged = export_merged(tuned, tmp_path / "merged")
    turns = [{"role": "user", "content": "你好 hello"}]
    texts = [AutoTokenizer.from_pretrained(folder).apply_chat_template(turns, tokenize=False)
             for folder in (merged, tiny_model())]  # fmt: skip
    assert texts[0] == texts[1] == "<|im_start|>user\n你好 hello<|im_end|>\n"


def test_an_adapter_export_loads_over_the_base_that_it_names(tuned: ModelRef, tmp_path: Path) -> None:
    out = export_adapter(tuned, tmp_path / "out")
    named = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert torch.equal(logits(ModelRef("out", Path(named), out)), logits(tuned))


def test_a_whole_model_has_no_adapter_to_export(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--as merged"):
        export_adapter(ModelRef("tiny", tiny_model()), tmp_path / "out")


def test_an_export_never_overwrites(tuned: ModelRef, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    (tmp_path / "out.gguf").write_text("keep")
    with pytest.raises(ModelError, match="not empty"):
        export_merged(tuned, tmp_path / "out")
    with pytest.raises(ModelError, match="exists already"):
        export_gguf(tuned, tmp_path / "out.gguf")
    assert [(p.name, p.read_text()) for p in (tmp_path / "out").iterdir()] == [("mine.txt", "keep")]


def test_an_export_that_fails_leaves_nothing(tuned: ModelRef, tmp_path: Path) -> None:
    assert tuned.adapter is not None
    edit(tuned.adapter / "adapter_config.json", r=8)
    for export, out in ((export_merged, "out"), (export_gguf, "out.gguf")):
        with pytest.raises(ModelError):
            export(tuned, tmp_path / out)  # type: ignore[operator]
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_export_into_a_file_is_refused(tuned: ModelRef, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="choose another directory"):
        export_merged(tuned, tmp_path / "file" / "out")


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("f32", 0.0), ("f16", 2**-11), ("bf16", 2**-8), ("q8_0", None)]
)
def test_a_gguf_file_holds_the_merged_weights(
    tmp_path: Path, family: str, dtype: str, tolerance: float | None
) -> None:
    ref = ModelRef("tiny", make_tiny_model(tmp_path / "model", family=family, heads=4, kv_heads=2))
    export_gguf(ref, tmp_path / "m.gguf", dtype=dtype)  # type: ignore[arg-type]
    held = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    exact = load_model(ref, dtype=torch.float32, device="cpu").state_dict()
    pairs = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
             "blk.1.attn_v.weight": "model.layers.1.self_attn.v_proj.weight",
             "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight"}  # fmt: skip
    for name, source in pairs.items():
        got, wanted = dequantize(held[name].data, held[name].tensor_type), exact[source].numpy()
        step = np.abs(wanted).max() / 127 if tolerance is None else 0.0
        np.testing.assert_allclose(
            got.reshape(wanted.shape), wanted, rtol=tolerance or 0.0, atol=step or 1e-7
        )
    assert "output.weight" not in held


def test_rotary_pairs_become_neighbours_in_every_head() -> None:
    rows = np.arange(16).reshape(16, 1)
    assert interleave_halves(rows, 2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert interleave_halves(rows[:, 0], 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]


def test_a_gguf_file_holds_the_vocabulary_and_the_template(tuned: ModelRef, tmp_path: Path) -> None:
    written = export_gguf(tuned, tmp_path / "m.gguf")
    fields = {name: field.contents() for name, field in GGUFReader(written.path).fields.items()}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model())
    assert fields["tokenizer.ggml.tokens"] == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert fields["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert fields["tokenizer.ggml.pre"] == "qwen2"
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template
    assert fields["qwen3.attention.key_length"] == 64
    assert written.tensors == {"f16": 15, "f32": 9}


def test_rows_that_q8_cannot_block_are_counted_as_f16(tmp_path: Path) -> None:
    ref = ModelRef("tiny", make_tiny_model(tmp_path / "model", hidden=40))
    written = export_gguf(ref, tmp_path / "m.gguf", dtype="q8_0")
    assert written.tensors == {"q8_0": 2, "f16": 13, "f32": 9}


REFUSED = {
    "rope_type": (
        "config.json",
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}},
    ),
    "attention_bias": ("config.json", {"attention_bias": True}),
    "hidden_act": ("config.json", {"hidden_act": "gelu"}),
    "pre-tokenizer is not Qwen2's": ("tokenizer.json", {"pre_tokenizer": None}),
    "normalizer is not NFC": ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path, reason: str) -> None:
    folder = Path(copytree(tiny_model(), tmp_path / "model"))
    name, values = REFUSED[reason]
    edit(folder / name, **values)
    with pytest.raises(ModelError, match=f"({reason}|tensors are missing)"):
        export_gguf(ModelRef("odd", folder), tmp_path / "m.gguf")
