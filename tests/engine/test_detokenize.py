"""Text from tokens, one at a time."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from dialoop.engine.detokenize import REPLACEMENT, Detokenizer
from tests.tiny import tiny_model


@functools.cache
def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model() / "tokenizer.json"))


def whole(ids: Sequence[int]) -> str:
    """Control tokens shown, so that a text that spells one comes back."""
    return tiny_tokenizer().decode(ids, skip_special_tokens=False)


def pieces(ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(whole)
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


@settings(deadline=None)
@given(st.text(max_size=40))
def test_the_pieces_join_to_the_text_and_show_no_half_character(text: str) -> None:
    shown = pieces(tiny_tokenizer().encode(text).ids)
    assert "".join(shown) == text
    assert REPLACEMENT in text or not any(REPLACEMENT in piece for piece in shown)


@settings(deadline=None)
@given(st.lists(st.integers(0, 399), max_size=40))
def test_the_pieces_of_any_tokens_join_to_the_decoded_whole(ids: list[int]) -> None:
    assert "".join(pieces(ids)) == whole(ids)


def test_an_emoji_of_several_tokens_comes_at_its_last_one() -> None:
    ids = tiny_tokenizer().encode("😀").ids
    assert len(ids) == 4
    assert pieces(ids) == ["", "", "", "😀", ""]


def test_a_character_that_never_becomes_whole_is_shown_at_the_end() -> None:
    ids = tiny_tokenizer().encode("ok😀").ids[:-1]
    assert pieces(ids)[-1] == REPLACEMENT


@functools.cache
def fallback_tokenizer() -> Tokenizer:
    """Llama 2's kind: spaces as U+2581, unknown characters as byte tokens, one leading space stripped."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "你"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    model = models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@settings(deadline=None)
@given(st.text("ab 你好😀é", min_size=1, max_size=20))
def test_byte_tokens_and_leading_spaces_of_llama_are_joined_too(text: str) -> None:
    tokenizer = fallback_tokenizer()
    detokenizer = Detokenizer(tokenizer.decode)
    shown = [detokenizer.push(token) for token in tokenizer.encode(text).ids]
    assert "".join(shown) + detokenizer.flush() == text
    assert not any(REPLACEMENT in piece for piece in shown)
