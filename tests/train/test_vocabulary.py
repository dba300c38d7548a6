"""A tokenizer that is trained here writes and reads any text, as Qwen2's would split it."""

from __future__ import annotations

import functools
import json
import unicodedata
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from dialoop.train.vocabulary import SPECIAL, train_tokenizer, write_tokenizer
from tests.tiny import CHATML, CORPUS, QWEN2_SPLIT

SIZE = 420


@functools.cache
def trained() -> Tokenizer:
    return train_tokenizer(CORPUS, SIZE)


@given(st.text())
def test_any_text_comes_back_composed(text: str) -> None:
    ids = trained().encode(text, add_special_tokens=False).ids
    assert trained().decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_the_vocabulary_has_the_size_asked_for_and_special_tokens_last() -> None:
    assert trained().get_vocab_size() == SIZE
    assert [trained().token_to_id(token) for token in SPECIAL] == [SIZE - 3, SIZE - 2, SIZE - 1]


def test_texts_are_split_by_qwen2s_expression() -> None:
    spec = json.loads(trained().to_str())
    split = spec["pre_tokenizer"]["pretokenizers"][0]
    assert (split["pattern"], split["behavior"]) == ({"Regex": QWEN2_SPLIT}, "Isolated")
    assert spec["normalizer"] == {"type": "NFC"}


def test_digits_stand_alone_and_words_take_their_space() -> None:
    tokens = trained().encode("order 1234", add_special_tokens=False).tokens
    assert tokens[-4:] == ["1", "2", "3", "4"]


def test_training_twice_gives_the_same_tokenizer() -> None:
    assert train_tokenizer(CORPUS, SIZE).to_str() == trained().to_str()


def test_transformers_reads_what_is_written_and_splits_alike(tmp_path: Path) -> None:
    write_tokenizer(trained(), CHATML, 128, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "I'll return 2 shoes.\n\n我想退货，谢谢！ 🙂"
    assert loaded(text)["input_ids"] == trained().encode(text, add_special_tokens=False).ids
    assert (loaded.eos_token, loaded.pad_token, loaded.model_max_length) == (
        "<|im_end|>",
        "<|endoftext|>",
        128,
    )
    rendered = loaded.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n"
