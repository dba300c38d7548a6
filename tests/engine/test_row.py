"""One answer, from tokens to certain text."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from dialoop.engine.row import Row, room
from dialoop.types import Sampling
from tests.tiny import tiny_model

STOP = 2


@functools.cache
def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model() / "tokenizer.json"))


def decoded(ids: list[int]) -> str:
    return str(tiny_tokenizer().decode(ids))


def row(limit: int, *stops: str) -> Row:
    return Row([5], Sampling(stop=stops), 0, decode=decoded, stop_ids={STOP}, limit=limit)  # type: ignore[arg-type]


def said(answer: Row, ids: list[int]) -> str:
    """What is shown while `ids` come, up to the end of the answer."""
    text = ""
    for token in ids:
        text += answer.accept(token)
        if answer.finish_reason:
            break
    return text


@settings(deadline=None)
@given(st.lists(st.integers(2, 399), min_size=1, max_size=30), st.integers(1, 30), st.data())
def test_a_streamed_answer_is_the_decoded_one_cut_at_its_stop(
    ids: list[int], limit: int, data: st.DataObject
) -> None:
    ended = STOP in ids[:limit]
    kept = ids[: ids.index(STOP)] if ended else ids[:limit]
    whole = decoded(kept)
    begin = data.draw(st.integers(0, len(whole)))
    stop = whole[begin : begin + 3] or "never"
    plain, stopped = row(limit), row(limit, stop)
    shown, cut = said(plain, ids), said(stopped, ids)
    if ended or len(ids) >= limit:
        assert shown == whole
        assert plain.finish_reason == ("stop" if ended else "length")
        assert cut == (whole[: whole.index(stop)] if stop in whole else whole)
        assert stop not in whole or stopped.finish_reason == "stop"
    else:
        assert whole.startswith(shown)
        assert plain.finish_reason is None


@pytest.mark.parametrize(
    ("prompt", "context", "asked", "given"),
    [(10, 100, None, 90), (10, 100, 5, 5), (10, 100, 500, 90), (99, 100, None, 1), (100, 100, 7, 1)],
)
def test_an_answer_gets_what_it_asks_for_or_the_rest_of_the_context(
    prompt: int, context: int, asked: int | None, given: int
) -> None:
    assert room(prompt, context, asked) == given
