"""Random BERT-style encoders with tokenizers of their own, made in a second for tests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.tiny import CORPUS

LONGEST = 40
SIZE = 32


def make_encoder(directory: Path, family: str = "bert", **files: Any) -> Path:
    """family: `bert` (WordPiece, lower case) or `roberta` (bytes). files: JSON by path below `directory`."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

    directory.mkdir(parents=True, exist_ok=True)
    size = _write_wordpiece(directory) if family == "bert" else _write_bytes(directory)
    shape: dict[str, Any] = {
        "vocab_size": size, "hidden_size": SIZE, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "initializer_range": 0.3,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model: Any
        if family == "bert":
            model = BertForMaskedLM(BertConfig(**shape, max_position_embeddings=LONGEST, pad_token_id=0))
        else:
            model = RobertaForMaskedLM(
                RobertaConfig(**shape, max_position_embeddings=LONGEST + 2, pad_token_id=1)
            )
    model.save_pretrained(directory)
    for name, value in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        held = json.loads(path.read_text()) if path.is_file() and isinstance(value, dict) else {}
        path.write_text(json.dumps({**held, **value} if isinstance(value, dict) else value))
    return directory


def pooling(mode: str) -> dict[str, Any]:
    """sentence-transformers' file: one mode of all is on."""
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken")
    return {"word_embedding_dimension": SIZE, **{f"pooling_mode_{each}": each == mode for each in modes}}


def _write_wordpiece(directory: Path) -> int:
    """Characters and the commonest words: the same in every process, as a trained one's numbers are not."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    texts = [normalizer.normalize_str(text) for text in [*CORPUS, "[sep] [cls]"]]
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(text))
    letters = sorted({letter for word in words for letter in word})
    common = sorted(words, key=lambda word: (-words[word], word))
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*specials, *letters, *(f"##{letter}" for letter in letters), *common]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # type: ignore[arg-type]
    tokenizer.normalizer = normalizer  # type: ignore[assignment]
    tokenizer.pre_tokenizer = splitter  # type: ignore[assignment]
    tokenizer.add_special_tokens(specials)  # type: ignore[arg-type]
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # type: ignore[assignment]
    return _save(tokenizer, directory, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")


def _write_bytes(directory: Path) -> int:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(  # type: ignore[assignment]
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return _save(tokenizer, directory, cls_token="<s>", sep_token="</s>", pad_token="<pad>")


def _save(tokenizer: Any, directory: Path, **special: str) -> int:
    tokenizer.enable_truncation(8)  # as published tokenizers do; nothing may be cut off all the same
    tokenizer.save(str(directory / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST, **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(described))
    return int(tokenizer.get_vocab_size())
