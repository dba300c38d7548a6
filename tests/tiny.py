"""A random Qwen3 model with a bilingual byte-level tokenizer, made in a second for tests."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

CONTEXT = 256
STOP = "<|im_end|>"
SPECIALS = ("<|endoftext|>", "<|im_start|>", STOP)
# The pre-tokenizer expression that Qwen2 published with its tokenizer.json.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CHATML = (
    "{%- if tools %}{{ '<|im_start|>system\\n' }}"
    "{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}"
    "{{- 'Tools:' }}{% for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}{{ '<|im_end|>\\n' }}"
    "{%- elif messages[0].role == 'system' %}"
    "{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif %}"
    "{%- for message in messages %}{% if not (loop.first and message.role == 'system') %}"
    "{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}"
    "{%- for call in message.tool_calls or [] %}"
    "{{- '\\n<tool_call>\\n' + (call.function | tojson) + '\\n</tool_call>' }}{% endfor %}"
    "{{- '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CORPUS = (
    "Hello, how can I help you today? Your order has been shipped and will arrive tomorrow.",
    "I would like to return the shoes that I bought. Please tell me the order number, thank you.",
    "你好，请问有什么可以帮您？您的订单已经发货，预计明天送达。",
    "我想退货，请告诉我订单号，谢谢。退款会在三个工作日内到账。",
    "system user assistant tool",
) * 4


def make_tiny_model(
    directory: Path,
    *,
    seed: int = 0,
    vocab_size: int = 400,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 2,
    kv_heads: int = 1,
    head_dim: int = 64,
    context: int = CONTEXT,
    template: str = CHATML,
    family: str = "qwen3",
) -> Path:
    """Write a Hugging Face directory (weights, tokenizer, chat template) and return it.

    Every byte is in the vocabulary, so any text can be encoded. family: `qwen3` or `llama`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(directory, vocab_size, template, context)
    config: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": ids[STOP],
        "pad_token_id": ids["<|endoftext|>"],
        "initializer_range": 0.2,
    }
    _write_weights(directory, config, family, seed, list({ids[STOP], ids["<|endoftext|>"]}))
    return directory


def _write_weights(
    directory: Path, config: dict[str, Any], family: str, seed: int, stop_ids: list[int]
) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "llama":
            model = LlamaForCausalLM(LlamaConfig(**config))
        else:
            model = Qwen3ForCausalLM(Qwen3Config(**config))
    model.generation_config.eos_token_id = sorted(stop_ids)
    model.generation_config.pad_token_id = config["pad_token_id"]
    model.save_pretrained(directory)


def _write_tokenizer(directory: Path, vocab_size: int, template: str, context: int) -> dict[str, int]:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": template,
        "eos_token": STOP,
        "pad_token": "<|endoftext|>",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    return {name: tokenizer.token_to_id(name) for name in SPECIALS}


def long_dialogues(count: int = 12, exchanges: int = 8) -> list[dict[str, Any]]:
    """Rows of dialogues whose last turns fit the tiny model's context, and whose whole does not."""
    parcels = ("a red box", "two small books", "the green lamp", "shoes", "one watch")
    rows: list[dict[str, Any]] = []
    for i in range(count):
        said = [f"{n + i}: I ask for {parcels[(n + i) % 5]}, which has not come" for n in range(exchanges)]
        turns = [
            ({"role": "user", "content": text}, {"role": "assistant", "content": "Wait."}) for text in said
        ]
        last = {"role": "assistant", "content": f"It is {'late' if i % 2 else 'here'}."}
        rows.append({"messages": [*sum(turns[:-1], ()), turns[-1][0], last]})
    return rows


@functools.cache
def tiny_model() -> Path:
    """The default tiny model, made once a process and removed at its end; treat it as read-only."""
    directory = Path(tempfile.mkdtemp(prefix="dialoop-tiny-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return make_tiny_model(directory)
