"""A server that fails as it is told to, and an engine before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from dialoop.backends.remote import RemoteEngine
from tests.backends.faulty import Faulty, heard, running


@pytest.fixture
def faulty() -> Faulty:
    return Faulty()


@pytest.fixture
def url(faulty: Faulty) -> Iterator[str]:
    with running(faulty) as url:
        yield url


@pytest_asyncio.fixture
async def engine(url: str) -> AsyncIterator[RemoteEngine]:
    engine = await heard(url, first_token_seconds=5, between_tokens_seconds=5, connect_seconds=2)
    yield engine
    await engine.aclose()
