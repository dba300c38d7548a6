"""The scripted engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from dialoop.backends.echo import EchoEngine, tokens_of
from dialoop.types import Engine
from tests.conformance.engine import EngineConformance, answer, asking


class TestEchoEngineConforms(EngineConformance):
    @pytest_asyncio.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        engine = EchoEngine(context=200)
        yield engine
        assert engine.open == 0
        await engine.aclose()

    @pytest_asyncio.fixture
    async def crowded_engine(self) -> AsyncIterator[Engine]:
        engine = EchoEngine(context=200)
        yield engine
        assert engine.open == 0


async def test_it_repeats_the_last_user_turn() -> None:
    engine = EchoEngine()
    assert (await answer(engine, asking(engine, "你好，hello  there"))).text == "你好，hello  there"


async def test_it_answers_from_its_script() -> None:
    engine = EchoEngine({"Hi": "Good day!"})
    assert (await answer(engine, asking(engine, "Hi"))).text == "Good day!"


@settings(deadline=None)
@given(st.text())
def test_its_tokens_join_to_the_text(text: str) -> None:
    assert "".join(tokens_of(text)) == text


@pytest.mark.parametrize(("text", "count"), [("", 0), ("one two", 2), ("你好吗", 3), ("订单 order 42", 4)])
def test_a_word_and_a_wide_character_are_a_token_each(text: str, count: int) -> None:
    assert len(tokens_of(text)) == count
