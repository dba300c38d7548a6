"""Thoughts are told apart from what is said, however the text comes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.chat.think import ThinkParser


def read(pieces: Sequence[str], inside: bool = False) -> tuple[str, str]:
    parser = ThinkParser(inside=inside)
    told = [parser.push(piece) for piece in pieces] + [parser.flush()]
    return "".join(thought for thought, _ in told), "".join(said for _, said in told)


@pytest.mark.parametrize(
    ("text", "inside", "wanted"),
    [
        ("<think>\nHm, well.\n</think>\n\nHello\n", False, ("Hm, well.", "Hello\n")),
        ("Hm, well.\n</think>\n\nHello", True, ("Hm, well.", "Hello")),
        ("<think>\n\n</think>\n\nHello", False, ("", "Hello")),
        ("<think>Hm </thi", False, ("Hm </thi", "")),
        ("Hm", True, ("Hm", "")),
        ("  Hello <think>x</think>", False, ("", "  Hello <think>x</think>")),
        ("<thin", False, ("", "<thin")),
        ("", True, ("", "")),
    ],
)
def test_thoughts_come_first(text: str, inside: bool, wanted: tuple[str, str]) -> None:
    assert read([text], inside) == read(text, inside) == wanted


words = st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "a", "想", " ", "\n", "<"])


@given(st.lists(words, max_size=10).map("".join), st.booleans(), st.data())
def test_the_parts_are_the_same_however_the_text_is_cut(text: str, inside: bool, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert read([text], inside) == read(pieces, inside) == read(text, inside)


@given(st.text())
def test_an_answer_without_thoughts_is_said_to_the_letter(text: str) -> None:
    if not text.lstrip().startswith("<think>"):
        assert read([text]) == ("", text)
