"""Chats through the filter."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
import pytest_asyncio

from dialoop.backends.echo import EchoEngine
from dialoop.errors import ContentFilterError, UnsupportedError
from dialoop.safety.moderated import Decision, Moderated
from dialoop.safety.policy import Policy
from dialoop.safety.rules import parse_list
from dialoop.safety.scan import compile_rules
from dialoop.types import (
    Answer,
    CallDelta,
    Chat,
    ChatRequest,
    Conversation,
    Delta,
    Message,
    Sampling,
    TokenLogprob,
    ToolCall,
    ToolKind,
    Usage,
    fold,
)

LIST = "[harassment mask]\nrude word\n[violence block]\nbomb\n[illicit flag]\nshady\n"
POLICY = Policy(compile_rules(parse_list(LIST, "test")[0]))


class Kept:
    """Decisions, as a store would keep them."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    async def __call__(self, decisions: Sequence[Decision]) -> None:
        self.decisions += decisions

    @property
    def told(self) -> list[tuple[str, str, str, str]]:
        return [(each.side, each.place, each.action, each.rule) for each in self.decisions]


async def ask(engine: Chat, *turns: Message, n: int = 1) -> tuple[Answer, ...]:
    return await fold(engine.chat(ChatRequest("echo", Conversation(turns), Sampling(n=n))))


def user(text: str) -> Message:
    return Message("user", text)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest_asyncio.fixture
async def echo() -> EchoEngine:
    return EchoEngine({"long": "one two bomb three four", "rude": "a rude word here", "shady": "ok"})


async def test_an_answer_is_cut_before_what_is_blocked(echo: EchoEngine, kept: Kept) -> None:
    (answer,) = await ask(Moderated(echo, POLICY, kept), user("long"))
    assert (answer.text, answer.finish_reason) == ("one two ", "content_filter")
    assert answer.usage == (await ask(echo, user("long")))[0].usage
    assert kept.told == [("output", "choices[0]", "block", "bomb")]
    assert echo.open == 0


async def test_an_answer_is_masked_and_ends_as_it_would(echo: EchoEngine, kept: Kept) -> None:
    answers = await ask(Moderated(echo, POLICY, kept), user("rude"), n=2)
    assert [(each.text, each.finish_reason) for each in answers] == [("a *** here", "stop")] * 2
    assert [each.place for each in kept.decisions] == ["choices[0]", "choices[1]"]


async def test_a_question_is_refused_before_the_engine_sees_it(echo: EchoEngine, kept: Kept) -> None:
    with pytest.raises(ContentFilterError, match="violence") as caught:
        await ask(Moderated(echo, POLICY, kept), user("Hi"), Message("assistant", "Yes?"), user("a b0mb"))
    assert caught.value.param == "messages[2]"
    assert "b0mb" not in str(caught.value)
    assert kept.told == [("input", "messages[2]", "block", "bomb")]


async def test_a_question_is_masked_for_the_engine_and_what_is_flagged_passes(
    echo: EchoEngine, kept: Kept
) -> None:
    (answer,) = await ask(Moderated(echo, POLICY, kept), Message("system", "bomb"), user("rude word, shady"))
    assert answer.text == "***, shady"
    assert [told[:3] for told in kept.told] == [
        ("input", "messages[1]", "mask"),
        ("input", "messages[1]", "flag"),
        ("output", "choices[0]", "flag"),
    ]


@pytest.mark.parametrize(("keep", "content"), [(False, None), (True, "r u d e")])
async def test_words_are_kept_only_where_that_is_wished(
    echo: EchoEngine, kept: Kept, keep: bool, content: str | None
) -> None:
    policy = Policy(compile_rules(parse_list("[hate flag]\nrude\n", "test")[0]), keep_content=keep)
    await ask(Moderated(echo, policy, kept), user("so r u d e!"))
    assert [each.content for each in kept.decisions] == [content and "r u d e"] * 2


async def test_a_chat_goes_on_where_decisions_cannot_be_kept(
    echo: EchoEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(decisions: Sequence[Decision]) -> None:
        raise OSError("disk full of rude word")

    with caplog.at_level(logging.ERROR):
        (answer,) = await ask(Moderated(echo, POLICY, fails), user("rude"))
    assert answer.text == "a *** here"
    assert "not recorded" in caplog.text
    assert "rude word" not in caplog.text


class Telling(EchoEngine):
    """Tells a log-probability with every token."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async for delta in super().chat(request):
            told = TokenLogprob(0, delta.text.encode(), -1.0)
            yield replace(delta, logprobs=(told,) if delta.text else ())


async def test_log_probabilities_never_give_away_what_was_masked_or_cut() -> None:
    engine = Telling({"rude": "a rude word here now", "long": "one two bomb three"})
    (answer,) = await ask(Moderated(engine, POLICY, None), user("rude"))
    assert answer.text == "a *** here now"
    assert [each.data for each in answer.logprobs] == [b"a", b" here", b" now"]
    (answer,) = await ask(Moderated(engine, POLICY, None), user("long"))
    assert [each.data for each in answer.logprobs] == [b"one", b" two"]


async def test_text_is_held_only_as_long_as_it_must_be(echo: EchoEngine) -> None:
    deltas = Moderated(echo, POLICY, None).chat(
        ChatRequest("echo", Conversation((user("I rude wood, you"),)), Sampling())
    )
    said = [delta.text async for delta in deltas if delta.text]
    assert said == ["I", " ", "rude wood,", " you"]


async def test_the_last_delta_has_the_usage(echo: EchoEngine) -> None:
    for text in ("long", "rude", "plain"):
        request = ChatRequest("echo", Conversation((user(text),)), Sampling(n=2))
        deltas = [delta async for delta in Moderated(echo, POLICY, None).chat(request)]
        assert isinstance(deltas[-1].usage, Usage)
        assert all(delta.usage is None for delta in deltas[:-1])
        assert sorted(delta.index for delta in deltas if delta.finish_reason) == [0, 1]


class Thinking(EchoEngine):
    """Thinks aloud what it then says."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        for piece in ("a ru", "de word, ", "hm"):
            yield Delta(0, reasoning=piece)
        async for delta in super().chat(request):
            yield delta


async def test_what_is_thought_is_filtered_like_what_is_said(kept: Kept) -> None:
    request = ChatRequest("echo", Conversation((user("Hi"),)), Sampling())
    deltas = [delta async for delta in Moderated(Thinking(), POLICY, kept).chat(request)]
    assert "".join(delta.reasoning for delta in deltas) == "a ***, hm"
    assert "".join(delta.text for delta in deltas) == "Hi"


class Calling(EchoEngine):
    """Makes calls, their arguments in small pieces and with a log-probability each."""

    def __init__(self, *arguments: str, kind: ToolKind = "function") -> None:
        super().__init__()
        self._arguments, self._kind = arguments, kind

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        for index, text in enumerate(self._arguments):
            yield Delta(0, calls=(CallDelta(index, "", f"call_{index}", "track", self._kind),))
            for at in range(0, len(text), 3):
                piece = text[at : at + 3]
                told = TokenLogprob(0, piece.encode(), -1.0)
                yield Delta(0, calls=(CallDelta(index, piece, kind=self._kind),), logprobs=(told,))
        yield Delta(0, finish_reason="tool_calls", usage=Usage(1, 9))


def shown(calls: Sequence[ToolCall]) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for call in calls]


async def test_what_nobody_minds_is_called_as_it_was_written(kept: Kept) -> None:
    written = ('{"order":  7, "why": "it is late"}', '{"a": {"b": ["c"]}}')
    (answer,) = await ask(Moderated(Calling(*written), POLICY, kept), user("Hi"))
    assert [call.arguments for call in answer.calls] == list(written)
    assert b"".join(each.data for each in answer.logprobs).decode() == "".join(written)
    assert (answer.finish_reason, kept.told) == ("tool_calls", [])


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"n": 1, "why": ["so", {"x": "a rude word here"}]}', {"n": 1, "why": ["so", {"x": "a *** here"}]}),
        ('{"why": "a r\\u0075de word"}', {"why": "a ***"}),
    ],
)
async def test_the_strings_of_a_call_are_masked_and_its_json_is_whole(
    kept: Kept, written: str, sent: object
) -> None:
    (answer,) = await ask(Moderated(Calling('{"n": 0}', written), POLICY, kept), user("Hi"))
    assert json.loads(answer.calls[1].arguments) == sent
    assert answer.finish_reason == "tool_calls"
    assert kept.told == [("output", "choices[0].tool_calls[1]", "mask", "rude word")]
    assert b"".join(each.data for each in answer.logprobs) == b'{"n": 0}'


async def test_an_answer_ends_before_a_call_that_is_blocked(kept: Kept) -> None:
    engine = Calling('{"n": 0}', '{"why": "a b0mb"}', '{"n": 2}')
    (answer,) = await ask(Moderated(engine, POLICY, kept), user("Hi"))
    assert shown(answer.calls) == [("call_0", "track", '{"n": 0}')]
    assert (answer.finish_reason, answer.usage) == ("content_filter", Usage(1, 9))
    assert kept.told == [("output", "choices[0].tool_calls[1]", "block", "bomb")]


@pytest.mark.parametrize(
    ("kind", "written", "sent"),
    [
        ("function", '{"why": "a rude wo\\u0072d and mo', '{"why": "a *** and mo'),
        ("custom", "say a rude word \\u0072", "say a *** \\u0072"),
        ("function", '{"why": "shady \\u0072 and mo', '{"why": "shady \\u0072 and mo'),
    ],
)
async def test_what_is_no_json_is_read_as_one_text(
    kept: Kept, kind: ToolKind, written: str, sent: str
) -> None:
    (answer,) = await ask(Moderated(Calling(written, kind=kind), POLICY, kept), user("Hi"))
    assert [(call.arguments, call.kind) for call in answer.calls] == [(sent, kind)]
    assert len(kept.decisions) == 1


async def test_token_ids_would_tell_what_is_hidden(echo: EchoEngine) -> None:
    request = ChatRequest("echo", Conversation((user("Hi"),)), Sampling(token_ids=True))
    with pytest.raises(UnsupportedError, match="filter hides") as refused:
        await fold(Moderated(echo, POLICY, None).chat(request))
    assert refused.value.param == "return_token_ids"
