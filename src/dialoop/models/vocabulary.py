"""A byte-level BPE as llama.cpp wants it; a tokenizer that it would cut otherwise is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from tokenizers import Tokenizer

from dialoop.chat.directory import read_files
from dialoop.errors import ModelError
from dialoop.types import ModelRef

# The expression that llama.cpp knows as `qwen2`, in the spelling of Qwen2's tokenizer.json.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """tokens: byte-level text by id; types: gguf.TokenType by id; merges: `left right`, strongest first."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    bos: int | None
    eos: int | None
    eot: int | None
    pad: int | None
    adds_bos: bool
    template: str


def tokenizer_folder(ref: ModelRef) -> Path:
    """The adapter's directory where it brings a tokenizer of its own, else the base's."""
    own = ref.adapter
    return own if own is not None and (own / "tokenizer.json").is_file() else ref.base


def read_vocabulary(ref: ModelRef, size: int, stop_ids: tuple[int, ...]) -> Vocabulary:
    """The tokenizer of `ref`, padded to the `size` rows of the embedding. Raises ModelError."""
    folder = tokenizer_folder(ref)
    path = folder / "tokenizer.json"
    files = read_files(folder)
    model = _byte_level_bpe(path, files.spec)
    added = {entry["id"]: entry for entry in files.spec["added_tokens"]}
    tokens, types = _tokens(path, model["vocab"], added, size)
    ids = {token: index for index, token in enumerate(tokens)}
    bos, eos, pad = (ids.get(files.special_tokens.get(f"{kind}_token", "")) for kind in ("bos", "eos", "pad"))
    eos = eos if eos in stop_ids or not stop_ids else stop_ids[0]
    return Vocabulary(
        tokens=tokens,
        types=types,
        merges=tuple(m if isinstance(m, str) else " ".join(m) for m in model["merges"]),
        bos=bos,
        eos=eos,
        eot=next((i for i in stop_ids if i != eos), None),
        pad=pad,
        adds_bos=_adds_bos(path, bos),
        template=files.template,
    )


def _byte_level_bpe(path: Path, described: Mapping[str, Any]) -> Mapping[str, Any]:
    model = described.get("model") or {}
    steps = _steps(described.get("pre_tokenizer"), "pretokenizers")
    normalizers = _steps(described.get("normalizer"), "normalizers")
    wrong = {
        "its model is no plain byte-level BPE": model.get("type", "BPE") != "BPE"
        or any(model.get(key) for key in ("dropout", "byte_fallback", "ignore_merges", "unk_token"))
        or bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")),
        "its pre-tokenizer is not Qwen2's": not _splits_as_qwen2(steps),
        "its normalizer is not NFC": any(step["type"] != "NFC" for step in normalizers),
    }
    for reason, holds in wrong.items():
        if holds:
            raise ModelError(
                f"{path}: {reason}, so llama.cpp would cut text otherwise: export the merged directory "
                f"and convert it with llama.cpp's own script"
            )
    return dict(model)


def _steps(step: Any, key: str) -> list[Any]:
    if not step:
        return []
    return list(step[key]) if step["type"] == "Sequence" else [step]


def _splits_as_qwen2(steps: list[Any]) -> bool:
    if [step["type"] for step in steps] != ["Split", "ByteLevel"]:
        return False
    split, byte_level = steps
    return (
        split["pattern"] == {"Regex": QWEN2_SPLIT}
        and split["behavior"] == "Isolated"
        and not split["invert"]
        and not byte_level["add_prefix_space"]
        and not byte_level.get("use_regex", True)
    )


def _tokens(
    path: Path, vocab: Mapping[str, int], added: Mapping[int, Any], size: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    by_id = {index: token for token, index in vocab.items()} | {
        i: entry["content"] for i, entry in added.items()
    }
    if by_id and max(by_id) >= size:
        raise ModelError(
            f"{path}: has token id {max(by_id)}, the model's embedding holds {size} rows: use the tokenizer "
            f"that the model was trained with"
        )
    tokens = tuple(by_id.get(i, f"[PAD{i}]") for i in range(size))
    return tokens, tuple(_type(i, by_id, added) for i in range(size))


def _type(index: int, by_id: Mapping[int, str], added: Mapping[int, Any]) -> int:
    if index not in by_id:
        return int(gguf.TokenType.UNUSED)
    if index in added:
        return int(gguf.TokenType.CONTROL if added[index].get("special") else gguf.TokenType.USER_DEFINED)
    return int(gguf.TokenType.NORMAL)


def _adds_bos(path: Path, bos: int | None) -> bool:
    """Whether encoding puts `bos` first; anything else that it adds is refused."""
    tokenizer = Tokenizer.from_file(str(path))
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    if whole == plain:
        return False
    if bos is not None and whole == [bos, *plain]:
        return True
    raise ModelError(
        f"{path}: adds {len(whole) - len(plain)} tokens to every text, of which llama.cpp knows only a "
        f"leading bos: remove its post_processor"
    )
