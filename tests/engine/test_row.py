"""One answer, from tokens to certain text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from dialoop.engine.row import Row, room
from dialoop.engine.sampler import Choice
from dialoop.types import Sampling, TokenLogprob
from tests.tiny import tiny_model

STOP = 2


@functools.cache
def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model() / "tokenizer.json"))


def decoded(ids: Sequence[int]) -> str:
    return str(tiny_tokenizer().decode(list(ids)))


class Words:
    """The tiny model's vocabulary, one token of it ending answers."""

    stop_ids = frozenset({STOP})

    def decode(self, ids: Sequence[int], /) -> str:
        return decoded(ids)

    def token_bytes(self, token_id: int, /) -> bytes:
        return f"<{token_id}>".encode()


def row(limit: int, *stops: str, **sampling: Any) -> Row:
    return Row([5], Sampling(stop=stops, **sampling), 0, vocabulary=Words(), limit=limit)


def said(answer: Row, ids: list[int]) -> str:
    """What is shown while `ids` come, up to the end of the answer."""
    text = ""
    for token in ids:
        text += answer.accept(Choice(token))
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


def test_a_stop_token_of_the_request_ends_the_answer_and_is_not_shown() -> None:
    answer = row(9, stop_token_ids=(300,))
    assert said(answer, [100, 101, 300, 102]) == decoded([100, 101])
    assert (answer.finish_reason, answer.tokens) == ("stop", [100, 101, 300])


def test_the_models_stop_token_is_passed_over_where_that_is_asked_for() -> None:
    answer = row(3, ignore_eos=True)
    said(answer, [100, STOP, 101, 102])
    assert (answer.finish_reason, answer.tokens) == ("length", [100, STOP, 101])


def test_a_stop_string_does_not_end_an_answer_before_its_least_tokens() -> None:
    whole = next(token for token in range(300, 400) if "\ufffd" not in decoded([token]))
    free, held = row(9, decoded([whole])), row(9, decoded([whole]), min_tokens=3)
    for answer, length in ((free, 1), (held, 4)):
        said(answer, [whole] * 6)
        assert (answer.finish_reason, len(answer.tokens)) == ("stop", length)


def test_log_probabilities_come_with_the_tokens_bytes_and_not_for_the_stop() -> None:
    answer = row(9, logprobs=1)
    answer.accept(Choice(100, -0.5, ((101, -0.2),)))
    assert answer.take_logprobs() == (
        TokenLogprob(100, b"<100>", -0.5, (TokenLogprob(101, b"<101>", -0.2),)),
    )
    answer.accept(Choice(STOP, -0.1))
    assert answer.take_logprobs() == ()
    assert answer.mean_logprob == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("prompt", "context", "asked", "given"),
    [(10, 100, None, 90), (10, 100, 5, 5), (10, 100, 500, 90), (99, 100, None, 1), (100, 100, 7, 1)],
)
def test_an_answer_gets_what_it_asks_for_or_the_rest_of_the_context(
    prompt: int, context: int, asked: int | None, given: int
) -> None:
    assert room(prompt, context, asked) == given
