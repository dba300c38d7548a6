"""Models that join an engine while it serves: bounded, evicted, refused, withdrawn."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from dialoop.backends.echo import EchoEngine
from dialoop.engine.pool import Pool
from dialoop.errors import EngineDownError, ModelError, OverloadedError, UnknownModelError, UnsupportedError
from dialoop.types import (
    ChatRequest,
    CompleteRequest,
    Conversation,
    Delta,
    Message,
    ModelRef,
    Served,
    Tokenized,
    Usage,
    fold,
)

ASKED = Conversation((Message("user", "hello"),))


class Starts:
    """Starts echoing engines and remembers which."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, ref: ModelRef) -> EchoEngine:
        if ref.name == "broken":
            raise ModelError("no weights")
        self.names.append(ref.name)
        return EchoEngine(name=ref.name)


def pool(starts: Starts, *names: str, limit: int = 1) -> Pool:
    made = Pool(EchoEngine(), starts, limit=limit)
    for name in names:
        made.offer(Served(name, 0, 16), lambda name=name: ModelRef(name, Path()))  # type: ignore[misc]
    return made


async def said(of: Pool, model: str) -> str:
    return (await fold(of.chat(ChatRequest(model, ASKED))))[0].text


async def test_a_guest_comes_when_it_is_asked_for_and_the_longest_unused_leaves() -> None:
    starts = Starts()
    guests = pool(starts, "a", "b")
    assert [served.name for served in guests.models()] == ["a", "b", "echo"]
    assert starts.names == []
    for model in ("a", "a", "echo", "b", "a"):
        assert await said(guests, model) == "hello"
    assert starts.names == ["a", "b", "a"]


async def test_a_guest_that_is_answering_stays_and_another_is_refused_for_now() -> None:
    guests = pool(Starts(), "a", "b")
    async with aclosing(guests.chat(ChatRequest("a", ASKED))) as answering:
        await anext(answering)
        with pytest.raises(OverloadedError, match="--max-tuned"):
            await said(guests, "b")
        assert [delta async for delta in answering]
    assert await said(guests, "b") == "hello"


async def test_a_guest_that_cannot_be_loaded_holds_no_place() -> None:
    guests = pool(Starts(), "a", "broken")
    with pytest.raises(EngineDownError, match="'broken' cannot be loaded"):
        await said(guests, "broken")
    assert await said(guests, "a") == "hello"


async def test_a_withdrawn_guest_is_unknown_and_finishes_what_it_began() -> None:
    guests = pool(Starts(), "a")
    async with aclosing(guests.chat(ChatRequest("a", ASKED))) as answering:
        await anext(answering)
        guests.withdraw("a")
        with pytest.raises(UnknownModelError):
            await said(guests, "a")
        assert [delta async for delta in answering]
    assert [served.name for served in guests.models()] == ["echo"]
    await guests.aclose()


async def test_what_the_engine_inside_does_not_do_is_unsupported() -> None:
    guests = pool(Starts(), "a")
    with pytest.raises(UnsupportedError):
        await guests.score("a", ASKED, ["x"])
    with pytest.raises(UnsupportedError):
        await guests.load(ModelRef("x", Path()))


class Writer(EchoEngine):
    """Goes on with texts, and tells tokens."""

    async def complete(self, request: CompleteRequest) -> AsyncGenerator[Delta, None]:
        yield Delta(0, f"{request.prompt} by {request.model}", "stop", Usage())

    async def tokenize(self, model: str, text: str | ChatRequest, *, framed: bool = True) -> Tokenized:
        return Tokenized((1, 2), ("a", "b"), 16)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        return model * len(ids)


async def test_texts_and_tokens_are_the_guests_own() -> None:
    guests = Pool(EchoEngine(), lambda ref: Writer(name=ref.name), limit=1)
    guests.offer(Served("a", 0, 16), lambda: ModelRef("a", Path()))
    assert (await fold(guests.complete(CompleteRequest("a", "written"))))[0].text == "written by a"
    assert (await guests.tokenize("a", "x")).ids == (1, 2)
    assert await guests.detokenize("a", [1, 2]) == "aa"
    for asked in (guests.tokenize("echo", "x"), fold(guests.complete(CompleteRequest("echo", "x")))):
        with pytest.raises(UnsupportedError):
            await asked
