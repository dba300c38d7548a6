"""Embeddings through the official client."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from dialoop.backends.echo import EchoEngine
from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.types import ModelRef
from tests.encoders import SIZE, make_encoder
from tests.serve.running import serving
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder = make_encoder(tmp_path_factory.mktemp("bert"))
    engine = LocalEngine(open_models([ModelRef("bert", folder), ModelRef("tiny", tiny_model())]))
    with serving(engine) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(client: OpenAI, **body: Any) -> httpx.Response:
    return httpx.post(f"{client.base_url}embeddings", json={"model": "bert", **body})


@pytest.mark.parametrize("model", ["bert", "tiny"])
def test_texts_become_vectors_in_their_order(client: OpenAI, model: str) -> None:
    texts = ["Where is my order?", "我想退货", "Hello"]
    found = client.embeddings.create(model=model, input=texts)
    assert [row.index for row in found.data] == [0, 1, 2]
    assert (found.object, found.data[0].object, found.model) == ("list", "embedding", model)
    assert found.usage.prompt_tokens == found.usage.total_tokens > 0
    for row, text in zip(found.data, texts, strict=True):
        (alone,) = client.embeddings.create(model=model, input=text).data
        assert alone.embedding == pytest.approx(row.embedding, abs=1e-5)


def test_numbers_and_bytes_say_the_same(client: OpenAI) -> None:
    (numbers,) = post(client, input="Hello").json()["data"]
    (coded,) = post(client, input="Hello", encoding_format="base64").json()["data"]
    assert struct.unpack(f"<{SIZE}f", base64.b64decode(coded["embedding"])) == pytest.approx(
        numbers["embedding"], abs=1e-7
    )


def test_token_ids_are_taken_for_one_text_or_several(client: OpenAI) -> None:
    one = client.embeddings.create(model="bert", input=[5, 6, 7]).data
    two = client.embeddings.create(model="bert", input=[[5, 6, 7], [8]]).data
    assert (len(one), len(two)) == (1, 2)
    assert one[0].embedding == pytest.approx(two[0].embedding, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": ["a", 5]}, "input"),
        ({"input": [[]]}, "input"), ({"input": [True]}, "input"), ({"input": ["a", ""]}, "input"),
        ({"input": [99999]}, "input"), ({"input": ["a"] * 2049}, "input"), ({"input": {"a": 1}}, "input"),
        ({"input": "a", "dimensions": 5}, "dimensions"), ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "model": "x"}, "model"),
        ({"input": "a", "inputs": "b"}, "inputs"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_field(client: OpenAI, body: dict[str, Any], param: str) -> None:
    answer = post(client, **body)
    assert answer.status_code == (404 if param == "model" else 400)
    assert answer.json()["error"]["param"] == param


def test_a_text_too_long_is_refused_and_not_cut_off(client: OpenAI) -> None:
    error = post(client, input=["a", "word " * 500]).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    assert "input[1]" in error["message"]


def test_chatting_with_an_encoder_is_unsupported(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="encoder") as caught:
        client.chat.completions.create(
            model="bert", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
    assert caught.value.code == "unsupported"


def test_an_engine_that_cannot_embed_says_so() -> None:
    with serving(EchoEngine()) as url:
        answer = httpx.post(f"{url}/v1/embeddings", json={"model": "echo", "input": "Hi"})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unsupported"


def test_the_schema_of_the_body_is_in_the_openapi_document(client: OpenAI, tmp_path: Path) -> None:
    document = httpx.get(str(client.base_url.copy_with(path="/openapi.json"))).json()
    body = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["required"]) == {"model", "input"}
