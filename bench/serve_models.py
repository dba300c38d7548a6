"""The models that bench/serve.py measures with, and its prompts: made once, the same files for every peer.

Weights are random; a model's speed does not depend on them. Every id below the vocabulary's size decodes to
text, so that each token of a stream shows, and a prompt has exactly as many tokens as asked for.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any

from dialoop.chat.render import render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.models.vocabulary import QWEN2_SPLIT
from dialoop.types import Conversation, Message, ModelRef

CONTEXT, HEAD = 32_768, 64
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama with tied embeddings and heads of 64."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(out, in) of a layer's matrices."""
        kv = self.kv_heads * HEAD
        attention = ((self.hidden, self.hidden), (kv, self.hidden), (kv, self.hidden))
        mlp = ((self.mlp, self.hidden), (self.mlp, self.hidden), (self.hidden, self.mlp))
        return (*attention, (self.hidden, self.hidden), *mlp)

    @property
    def weights(self) -> int:
        """Numbers that one decode step reads: every matrix, the output one included."""
        return self.layers * sum(a * b for a, b in self.linears) + self.vocabulary * self.hidden


SHAPES = {
    # Qwen2-0.5B's, without the three biases of its attention (0.006 % of the weights), so that one GGUF
    # writer serves every model here.
    "A": Shape(24, 896, 14, 2, 4864, 151_936),
    "B": Shape(6, 320, 5, 5, 864, 8_192),
    "tiny": Shape(2, 64, 1, 1, 128, 3_072),  # for trying a worker out, no measure of anything
}


def built(name: str, folder: Path) -> Path:
    """The Hugging Face directory of a model, made where `folder` does not hold it yet."""
    out = folder / name
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as work:
            whole = Path(work) / name
            whole.mkdir()
            stop = write_tokenizer(whole, SHAPES[name].vocabulary)
            write_weights(whole, SHAPES[name], stop)
            os.replace(whole, out)
    return out


def write_weights(folder: Path, shape: Shape, stop: int) -> None:
    """config.json, generation_config.json and random bf16 weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=HEAD, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=stop, pad_token_id=stop - 2, dtype="bfloat16", initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    # Layers must outweigh the embedding, or tied weights would answer each token with itself.
    model.model.embed_tokens.weight.data.mul_(0.2)
    model.bfloat16().save_pretrained(folder)


def gguf_of(folder: Path, kind: str) -> Path:
    """The model as a GGUF file beside its directory, made where it is not there yet."""
    from dialoop.models.gguf import export_gguf

    out = folder.with_name(f"{folder.name}-{kind}.gguf")
    if not out.exists():
        export_gguf(ModelRef(folder.name, folder), out, dtype=kind)  # type: ignore[arg-type]
    return out


def lora_of(folder: Path, number: int) -> Path:
    """A LoRA adapter of rank 16 on every linear layer, its PEFT directory beside the model's."""
    import torch
    from safetensors.torch import save_file

    out = folder.with_name(f"{folder.name}-lora-{number}")
    if out.exists():
        return out
    shape, rank = SHAPES[folder.name], 16
    names = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    generator, tensors = torch.Generator().manual_seed(number), {}
    matrices = list(zip(names, shape.linears, strict=True))
    for layer, (name, (rows, columns)) in product(range(shape.layers), matrices):
        key = f"base_model.model.model.layers.{layer}.{name}"
        tensors[f"{key}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) * 0.02
        tensors[f"{key}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.02
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 32, "bias": "none",
        "base_model_name_or_path": str(folder), "target_modules": [n.split(".")[1] for n in names],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lora.") as work:
        whole = Path(work) / "lora"
        whole.mkdir()
        save_file(tensors, whole / "adapter_model.safetensors")
        (whole / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        os.replace(whole, out)
    return out


def write_tokenizer(folder: Path, size: int) -> int:
    """A byte-level BPE of exactly `size` entries and a ChatML template; the id that ends a turn, the last.

    Its words are written down, not learnt: syllables such as `bat`, ` bat` and ` batgud`, in as many merges.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    pieces, merges = sorted(pre_tokenizers.ByteLevel.alphabet()), []
    for left, right in islice(_merges(), size - len(pieces) - len(SPECIALS)):
        merges.append((left, right))
        pieces.append(left + right)
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    assert tokenizer.get_vocab_size() == size
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIALS[2], "pad_token": SPECIALS[0],
        "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False, "add_prefix_space": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    return size - 1


@cache
def syllables() -> tuple[str, ...]:
    """Consonant, vowel, consonant: 2,205 of them."""
    consonants = "bcdfghjklmnpqrstvwxyz"
    return tuple(map("".join, product(consonants, "aeiou", consonants)))


def _merges() -> Iterator[tuple[str, str]]:
    """`b a`, `ba t`, `Ġ bat`, `Ġbat gud`: no text can be merged in two ways."""
    yield from dict.fromkeys((s[0], s[1]) for s in syllables())
    yield from ((s[:2], s[2]) for s in syllables())
    yield from (("Ġ", s) for s in syllables())
    yield from (("Ġ" + a, b) for a, b in product(syllables(), syllables()))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as a client sends it, and the token ids that it is to the model."""

    messages: tuple[dict[str, str], ...]
    ids: tuple[int, ...]

    def sent(self) -> dict[str, Any]:
        return {"messages": self.messages, "ids": self.ids}


class Prompts:
    """Prompts that were never asked before, of exact lengths, so that no cache of prefixes knows them."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = ChatTokenizer.load(folder)
        self._words = [s for s in syllables() if len(self._tokenizer.encode(f" {s}")) == 1]
        self._random = random.Random(0)

    def fresh(self, count: int, tokens: int, *, system: str = "") -> list[Prompt]:
        """`count` prompts of `tokens` tokens each; system: the system message that all have, if any."""
        return [self._one(tokens, system) for _ in range(count)]

    def text(self, words: int) -> str:
        """As many tokens as words."""
        return " ".join(self._random.choices(self._words, k=words))

    def _one(self, tokens: int, system: str) -> Prompt:
        frame = len(self._rendered("", system))
        if tokens <= frame:
            raise SystemExit(f"a prompt of {tokens} tokens: the chat template alone takes {frame}")
        text = self.text(tokens - frame)
        ids = self._rendered(text, system)
        assert len(ids) == tokens, (len(ids), tokens)
        return Prompt(tuple(_messages(text, system)), ids)

    def _rendered(self, text: str, system: str) -> tuple[int, ...]:
        messages = tuple(Message(m["role"], m["content"]) for m in _messages(text, system))  # type: ignore[arg-type]
        return render_prompt(Conversation(messages), self._tokenizer)


def _messages(text: str, system: str) -> Iterator[dict[str, str]]:
    if system:
        yield {"role": "system", "content": system}
    yield {"role": "user", "content": text}
