"""GGUF files for llama.cpp, from Llama and Qwen3 models with a byte-level BPE as Qwen2 splits it.

Layout: github.com/ggml-org/ggml/blob/master/docs/gguf.md. llama.cpp rotates neighbouring pairs of a head
for the `llama` architecture and halves of it for `qwen3`, so Llama's rows of q and k are reordered here.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import gguf
import numpy as np
import torch

from dialoop.errors import ModelError, echo
from dialoop.models.load import load_model, refuse_unmergeable
from dialoop.models.vocabulary import Vocabulary, read_vocabulary
from dialoop.types import ModelRef

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
TYPES: Mapping[str, gguf.GGMLQuantizationType] = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
FILE_TYPES: Mapping[str, gguf.LlamaFileType] = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
ARCHITECTURES: Mapping[str, gguf.MODEL_ARCH] = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
Q8_BLOCK = 32


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A written file: its bytes, and how many tensors have which type."""

    path: Path
    size: int
    tensors: Mapping[str, int]


def export_gguf(ref: ModelRef, out: Path, *, dtype: GgufType = "f16") -> GgufFile:
    """Write the model, its adapter merged in fp32, as one GGUF file. Raises ModelError.

    dtype: of the matrices; vectors stay f32, and rows that q8_0 cannot block into 32 become f16.
    """
    if dtype not in TYPES:
        raise ModelError(f"dtype {echo(dtype)} is not written: use one of {', '.join(get_args(GgufType))}")
    if out.exists():
        raise ModelError(f"{out}: exists already: choose another file or remove it first")
    refuse_unmergeable(ref)
    model: Any = load_model(ref, dtype=torch.float32, device="cpu", merge=True)
    architecture = _architecture(ref.base, model.config)
    vocabulary = read_vocabulary(ref, model.config.vocab_size, _stop_ids(model))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        counts = _write(part, Path(ref.name).name, architecture, model, vocabulary, dtype)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return GgufFile(out, out.stat().st_size, counts)


def _architecture(folder: Path, config: Any) -> gguf.MODEL_ARCH:
    """The GGUF architecture; every setting that llama.cpp would compute otherwise is refused."""
    family = config.model_type
    if family not in ARCHITECTURES:
        raise ModelError(
            f"{folder}: model_type {echo(family)} is not exported to GGUF: use llama or qwen3, or "
            f"export the merged directory and convert it with llama.cpp's own script"
        )
    rope_type = config.rope_parameters.get("rope_type", "default")
    refused = {
        "rope_type": None if rope_type == "default" else rope_type,
        "attention_bias": family == "qwen3" and config.attention_bias,
        "use_sliding_window": getattr(config, "use_sliding_window", False),
        "hidden_act": None if config.hidden_act == "silu" else config.hidden_act,
        "partial_rotary_factor": config.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0,
    }
    for key, value in refused.items():
        if value:
            raise ModelError(
                f"{folder}: {key} = {echo(value)} is not exported to GGUF: export the merged directory "
                f"and convert it with llama.cpp's own script"
            )
    return ARCHITECTURES[family]


def _stop_ids(model: Any) -> tuple[int, ...]:
    ids = model.generation_config.eos_token_id
    ids = model.config.eos_token_id if ids is None else ids
    return tuple(ids) if isinstance(ids, list | tuple) else () if ids is None else (ids,)


def _write(
    part: Path, name: str, architecture: gguf.MODEL_ARCH, model: Any, vocabulary: Vocabulary, dtype: GgufType
) -> Mapping[str, int]:
    writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        _add_shape(writer, name, model.config, dtype)
        _add_vocabulary(writer, vocabulary)
        counts: Counter[str] = Counter()
        for tensor, data, kind in _tensors(model, architecture, TYPES[dtype]):
            writer.add_tensor(tensor, data, raw_dtype=kind)
            counts[kind.name.lower()] += 1
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.flush()
    finally:
        writer.close()
    with part.open("rb") as file:
        os.fsync(file.fileno())
    return dict(counts)


def _add_shape(writer: gguf.GGUFWriter, name: str, config: Any, dtype: GgufType) -> None:
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    writer.add_token_merges(list(vocabulary.merges))
    writer.add_add_bos_token(vocabulary.adds_bos)
    special = (
        (writer.add_bos_token_id, vocabulary.bos),
        (writer.add_eos_token_id, vocabulary.eos),
        (writer.add_eot_token_id, vocabulary.eot),
        (writer.add_pad_token_id, vocabulary.pad),
    )
    for add, token in special:
        if token is not None:
            add(token)
    writer.add_chat_template(vocabulary.template)


def _tensors(
    model: Any,
    architecture: gguf.MODEL_ARCH,
    kind: gguf.GGMLQuantizationType,
) -> Iterator[tuple[str, np.ndarray[Any, Any], gguf.GGMLQuantizationType]]:
    config, names = model.config, gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelError(
                f"tensor {echo(name)} has no place in a GGUF file: export the merged directory instead"
            )
        data = tensor.detach().to(torch.float32).numpy()
        projection = name.split(".")[-2]
        if architecture is gguf.MODEL_ARCH.LLAMA and projection in heads:
            data = interleave_halves(data, heads[projection])
        chosen = _type_of(data, kind)
        yield target, _quantized(name, data, chosen), chosen


def interleave_halves(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorder the rows of each head from (first half, second half) to neighbouring pairs."""
    paired = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(paired.reshape(rows.shape))


def _type_of(data: np.ndarray[Any, Any], kind: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    if data.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    if kind is gguf.GGMLQuantizationType.Q8_0 and data.shape[-1] % Q8_BLOCK:
        return gguf.GGMLQuantizationType.F16
    return kind


def _quantized(
    name: str, data: np.ndarray[Any, Any], kind: gguf.GGMLQuantizationType
) -> np.ndarray[Any, Any]:
    if kind is gguf.GGMLQuantizationType.F16 and np.abs(data).max(initial=0.0) > np.finfo(np.float16).max:
        raise ModelError(
            f"tensor {echo(name)} holds values beyond f16's 65504: export with --dtype bf16 or f32"
        )
    quantized: np.ndarray[Any, Any] = gguf.quants.quantize(np.ascontiguousarray(data), kind)
    return quantized
