"""Words, exact-match folding and display pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rouge_score.tokenize import tokenize as rouge_tokenize

from dialoop.evals.words import normalised, pieces, words


def test_chinese_characters_are_words_and_latin_words_stay_whole() -> None:
    assert words("我的iPhone 15坏了！") == ["我", "的", "iphone", "15", "坏", "了"]


def test_full_width_letters_and_digits_are_folded() -> None:
    assert words("ＡＢＣ１２３，好") == ["abc123", "好"]


def test_words_of_other_scripts_do_not_vanish() -> None:
    assert words("Привет, café こんにちは") == ["привет", "café", "こ", "ん", "に", "ち", "は"]


def test_rare_chinese_characters_beyond_the_basic_plane_are_words() -> None:
    assert words("𠮷野家") == ["𠮷", "野", "家"]


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_words_equal_rouge_scores_own(text: str) -> None:
    assert words(text) == rouge_tokenize(text, None)


@given(st.text())
def test_words_are_never_empty_and_hold_no_space(text: str) -> None:
    assert all(word and not any(map(str.isspace, word)) for word in words(text))


@given(st.text())
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_normalising_folds_case_width_and_space() -> None:
    assert normalised("  Ｏrder\n 12 OK ") == normalised("order 12 ok")
    assert normalised("订单") != normalised("定单")
