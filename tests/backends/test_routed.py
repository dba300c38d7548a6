"""Several engines as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from dialoop.backends.echo import EchoEngine
from dialoop.backends.routed import Patience, Route, RoutedEngine
from dialoop.errors import (
    DialoopError,
    EngineDownError,
    OverloadedError,
    RequestError,
    UnknownModelError,
    UnsupportedError,
)
from dialoop.types import (
    ChatRequest,
    CompleteRequest,
    Condition,
    Delta,
    Embedded,
    Engine,
    Served,
    Usage,
    fold,
)
from tests.backends.faulty import ASKED
from tests.conformance.engine import EngineConformance


class TestRoutedEngineConforms(EngineConformance):
    @pytest_asyncio.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        engines = [EchoEngine(context=200), EchoEngine(context=200)]
        yield RoutedEngine([Route(engine) for engine in engines])
        assert not any(engine.open for engine in engines)

    @pytest_asyncio.fixture
    async def crowded_engine(self, engine: Engine) -> AsyncIterator[Engine]:
        yield engine


class Scripted(EchoEngine):
    """Says its own name; each entry of `fails` is raised in place of an answer, one of them after a delta."""

    def __init__(self, says: str, *fails: DialoopError, late: bool = False, context: int = 99) -> None:
        super().__init__({"Hi": says}, name="m", context=context)
        self.fails, self.late, self.asked, self.condition = list(fails), late, 0, "ok"

    def health(self) -> Condition:
        return self.condition  # type: ignore[return-value]

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.asked += 1
        if self.fails:
            if self.late:
                yield Delta(0, "begun")
            raise self.fails.pop(0)
        async for delta in super().chat(request):
            yield delta


class Waits:
    """Sleeps that take no time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def down(wait: int = 1) -> EngineDownError:
    return EngineDownError("down", retry_after=wait)


def routed(*engines: Engine, rounds: int = 3) -> tuple[RoutedEngine, Waits]:
    waits = Waits()
    routes = [Route(engine) for engine in engines]
    return RoutedEngine(routes, patience=Patience(rounds=rounds), sleep=waits), waits


async def said(engine: RoutedEngine) -> str:
    return (await fold(engine.chat(ASKED)))[0].text


async def test_requests_are_spread_by_weight_and_evenly() -> None:
    engine = RoutedEngine([Route(Scripted("a"), 3), Route(Scripted("b"), 1)])
    order = [await said(engine) for _ in range(400)]
    assert Counter(order) == {"a": 300, "b": 100}
    assert all("b" in order[i : i + 4] for i in range(0, 397))


async def test_what_fails_before_the_first_delta_is_asked_of_the_next() -> None:
    for error in (down(), OverloadedError("full"), UnsupportedError("no"), UnknownModelError("m", ())):
        engine, waits = routed(Scripted("a", error), Scripted("b"))
        assert await said(engine) == "b"
        assert waits.seconds == []


async def test_what_the_request_has_wrong_is_wrong_everywhere() -> None:
    second = Scripted("b")
    engine, _ = routed(Scripted("a", RequestError("bad")), second)
    with pytest.raises(RequestError, match="bad"):
        await said(engine)
    assert second.asked == 0


async def test_after_the_first_delta_nothing_is_tried_again() -> None:
    second = Scripted("b")
    engine, waits = routed(Scripted("a", down(), late=True), second)
    deltas = engine.chat(ASKED)
    assert (await anext(deltas)).text == "begun"
    with pytest.raises(EngineDownError):
        await fold(deltas)
    assert (second.asked, waits.seconds) == (0, [])


async def test_when_all_have_failed_they_are_tried_again_after_a_growing_wait() -> None:
    engine, waits = routed(Scripted("a", down(), down()), Scripted("b", down(), down()))
    assert await said(engine) in "ab"
    assert len(waits.seconds) == 2
    assert 0.375 <= waits.seconds[0] <= 0.5 < 0.75 <= waits.seconds[1] <= 1.0


async def test_after_the_last_round_the_error_is_told() -> None:
    one = Scripted("a", *[down() for _ in range(9)])
    engine, waits = routed(one, rounds=3)
    with pytest.raises(EngineDownError):
        await said(engine)
    assert (one.asked, len(waits.seconds)) == (3, 2)


@pytest.mark.parametrize(("asked", "waited"), [(5, [5.0]), (30, [])])
async def test_a_wait_that_was_asked_for_is_kept_or_not_begun(asked: int, waited: list[float]) -> None:
    engine, waits = routed(Scripted("a", OverloadedError("full", retry_after=asked)))
    if waited:
        assert await said(engine) == "a"
    else:
        with pytest.raises(OverloadedError):
            await said(engine)
    assert waits.seconds == waited


async def test_what_none_can_do_is_not_tried_again() -> None:
    engine, waits = routed(Scripted("a", UnsupportedError("no")), Scripted("b", UnsupportedError("no")))
    with pytest.raises(UnsupportedError):
        await said(engine)
    assert waits.seconds == []


class Late(Scripted):
    """Learns its model when it is asked to."""

    def __init__(self) -> None:
        super().__init__("late")
        self.known = False

    def models(self) -> tuple[Served, ...]:
        return super().models() if self.known else ()

    async def refresh(self) -> None:
        self.known = True


async def test_a_model_nobody_knows_is_asked_for_once_more() -> None:
    engine, _ = routed(Late())
    assert await said(engine) == "late"
    with pytest.raises(UnknownModelError, match="m"):
        await fold(engine.chat(replace(ASKED, model="other")))


def test_a_model_that_several_serve_is_listed_once_with_the_context_that_all_hold() -> None:
    engine, _ = routed(Scripted("a", context=99), Scripted("b", context=50), EchoEngine())
    assert [(served.name, served.context) for served in engine.models()] == [("m", 50), ("echo", 2048)]


@pytest.mark.parametrize(
    ("conditions", "told"),
    [(("ok", "failed"), "ok"), (("starting", "failed"), "starting"), (("failed", "failed"), "failed")],
)
def test_it_is_well_while_one_of_them_is(conditions: tuple[str, str], told: str) -> None:
    engines = [Scripted("a"), Scripted("b")]
    for engine, condition in zip(engines, conditions, strict=True):
        engine.condition = condition
    assert routed(*engines)[0].health() == told


class Embedding(Scripted):
    async def embed(self, model: str, texts: object, **options: object) -> Embedded:
        if self.fails:
            raise self.fails.pop(0)
        return Embedded(((1.0,),), 1)


async def test_texts_are_embedded_by_one_that_can() -> None:
    engine, _ = routed(Scripted("a"), Embedding("b", down()), Embedding("c"))
    assert (await engine.embed("m", ["x"])).vectors == ((1.0,),)
    with pytest.raises(UnsupportedError):
        await routed(Scripted("a"))[0].embed("m", ["x"])


class Writer(EchoEngine):
    """Goes on with texts."""

    async def complete(self, request: CompleteRequest) -> AsyncGenerator[Delta, None]:
        yield Delta(0, f"{request.prompt}, written", "stop", Usage())


async def test_a_text_goes_to_an_engine_that_completes_texts() -> None:
    routed = RoutedEngine([Route(EchoEngine(name="m")), Route(Writer(name="m")), Route(EchoEngine(name="n"))])
    for _ in range(3):
        assert (await fold(routed.complete(CompleteRequest("m", "x"))))[0].text == "x, written"
    with pytest.raises(UnsupportedError):
        await fold(routed.complete(CompleteRequest("n", "x")))
