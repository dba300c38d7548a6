"""The values that travel between the rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dialoop.errors import echo, nearest
from dialoop.types import Conversation, Delta, Message, Preference, Usage, fold

TALK = Conversation(
    (
        Message("user", "hi"),
        Message("assistant", "hello"),
        Message("user", "bye"),
        Message("assistant", "ciao"),
    )
)


def test_the_history_ends_before_the_last_answer() -> None:
    assert [m.content for m in TALK.history.messages] == ["hi", "hello", "bye"]
    assert TALK.answer == "ciao"


def test_a_conversation_without_an_answer_is_its_own_history() -> None:
    question = Conversation((Message("user", "hi"),))
    assert question.history == question
    assert question.answer == ""
    assert question.answer_index is None


def test_a_preference_holds_a_supervised_example() -> None:
    question = Conversation((Message("user", "hi"),))
    pair = Preference(question, Message("assistant", "hello"), Message("assistant", "what"))
    assert pair.conversation.answer == "hello"
    assert pair.conversation.history == question


async def test_an_answer_is_the_fold_of_its_deltas_by_index() -> None:
    async def deltas() -> AsyncIterator[Delta]:
        for delta in (
            Delta(1, "b"),
            Delta(0, "a"),
            Delta(0, "c", "stop"),
            Delta(1, "", "length", Usage(3, 4)),
        ):
            yield delta

    first, second = await fold(deltas())
    assert (first.text, first.finish_reason) == ("ac", "stop")
    assert (second.text, second.finish_reason) == ("b", "length")
    assert second.usage == Usage(3, 4)


def test_errors_repeat_short_scalars_and_never_content() -> None:
    assert echo("short") == "'short'"
    assert echo("x" * 65) == "a string of 65 characters"
    assert echo(["secret"]) == "a list of 1 items"
    assert echo(3) == "3"


def test_the_nearest_name_is_offered_or_all_are_listed() -> None:
    assert nearest("epoch", ["epochs", "seed"]) == "; did you mean 'epochs'?"
    assert nearest("zzz", ["b", "a"]) == "; known: a, b"
