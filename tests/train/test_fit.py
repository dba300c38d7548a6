"""Rows that are too long lose their oldest turns, and nothing goes uncounted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dialoop.chat.render import render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.errors import TrainError
from dialoop.train.fit import Rows, fit_rows, without_oldest
from dialoop.types import Conversation, Message, Role
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model())


def talk(*turns: tuple[Role, str], **metadata: object) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns), metadata=metadata)


LONG = talk(
    ("system", "Be brief."),
    ("user", "Where is my order? " * 4),
    ("assistant", "On its way."),
    ("user", "我想退货。"),
    ("assistant", "请告诉我订单号，谢谢。"),
)
SHORT = talk(("user", "Thanks"), ("assistant", "You are welcome."))


def fit(tokenizer: ChatTokenizer, rows: Sequence[Conversation], length: int) -> Rows:
    return fit_rows(rows, tokenizer, max_length=length, mask="assistant")


def test_rows_that_fit_are_rendered_as_they_are(tokenizer: ChatTokenizer) -> None:
    rows = fit(tokenizer, [LONG, SHORT], 512)
    assert rows.rows == (render(LONG, tokenizer), render(SHORT, tokenizer))
    assert (rows.shortened, rows.dropped) == (0, ())


def test_a_long_row_loses_its_oldest_exchange_and_keeps_the_system_turn(tokenizer: ChatTokenizer) -> None:
    shorter = without_oldest(LONG)
    assert shorter is not None
    assert [m.content for m in shorter.messages] == ["Be brief.", "我想退货。", "请告诉我订单号，谢谢。"]
    length = len(render(shorter, tokenizer).token_ids)
    rows = fit(tokenizer, [LONG, SHORT], length)
    assert rows.rows[0] == render(shorter, tokenizer)
    assert (rows.shortened, rows.dropped) == (1, ())


def test_a_row_that_does_not_fit_even_so_is_dropped_by_its_position(tokenizer: ChatTokenizer) -> None:
    rows = fit(tokenizer, [LONG, SHORT, LONG], len(render(SHORT, tokenizer).token_ids))
    assert (len(rows.rows), rows.shortened, rows.dropped) == (1, 0, (0, 2))


def test_a_row_whose_learnt_turn_was_cut_away_is_dropped_not_fatal(tokenizer: ChatTokenizer) -> None:
    first, second = Message("assistant", "On its way."), Message("assistant", "Bye.", weight=0)
    messages = (Message("user", "Where is it? " * 9), first, Message("user", "Thanks"), second)
    rows = fit(tokenizer, [Conversation(messages), SHORT], len(render(SHORT, tokenizer).token_ids) + 5)
    assert rows.dropped == (0,)


def test_a_system_turn_between_others_keeps_its_place() -> None:
    mixed = talk(
        ("user", "a"),
        ("assistant", "b"),
        ("system", "c"),
        ("user", "d"),
        ("developer", "e"),
        ("assistant", "f"),
    )
    shorter = without_oldest(mixed)
    assert shorter is not None
    assert [m.content for m in shorter.messages] == ["c", "d", "e", "f"]
    assert without_oldest(shorter) is None


def test_nothing_to_learn_is_an_error_that_names_the_row(tokenizer: ChatTokenizer) -> None:
    silent = talk(("user", "Hello?"))
    with pytest.raises(TrainError, match=r"^conversation 2: .*no assistant turn"):
        fit(tokenizer, [SHORT, silent], 512)
    with pytest.raises(TrainError, match=r"^shop\.jsonl:17: "):
        fit(tokenizer, [SHORT, talk(("user", "Hello?"), source="shop.jsonl", line=17)], 512)


def test_when_none_fits_the_error_says_what_to_raise(tokenizer: ChatTokenizer) -> None:
    with pytest.raises(TrainError, match=r"none of 2 .* fits 16 tokens: raise train\.max_length"):
        fit(tokenizer, [LONG, LONG], 16)


def test_supervised_tokens_are_those_that_carry_loss(tokenizer: ChatTokenizer) -> None:
    answer = render(SHORT, tokenizer)
    assert fit(tokenizer, [SHORT], 512).supervised == sum(weight > 0 for weight in answer.loss_mask)
    everything = fit_rows([SHORT], tokenizer, max_length=512, mask="all")
    assert everything.supervised == len(answer.token_ids) - 1
