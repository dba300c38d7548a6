"""The whole way with a real, if random, model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.types import ModelRef
from tests.serve.running import serving
from tests.tiny import CONTEXT, tiny_model


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    engine = LocalEngine({"tiny": open_model(ModelRef("tiny", tiny_model()))})
    with serving(engine) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_stream_joins_to_the_whole_answer_and_the_seed_repeats_it(client: OpenAI) -> None:
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "退货 please"}],
        "seed": 5,
        "max_tokens": 24,
    }
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    chunks = client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    )
    assert whole.usage.completion_tokens <= 24


def test_the_catalogue_tells_the_context(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.max_model_len) == ("tiny", CONTEXT)  # type: ignore[attr-defined]
