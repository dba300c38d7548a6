# ruff: noqa: E501  (bodies are easier to read unbroken)
"""Text completions, tokens and scores, with a real, if random, model and an encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.types import ModelRef
from tests.encoders import make_encoder
from tests.serve.running import serving
from tests.tiny import STOP, tiny_model

TEXT = "Your order has been shipped, 请稍等。"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    encoder = make_encoder(tmp_path_factory.mktemp("encoder"))
    models = open_models([ModelRef("tiny", tiny_model()), ModelRef("vectors", encoder)])
    with serving(LocalEngine(models)) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def complete(client: OpenAI, **fields: Any) -> Any:
    return client.completions.create(**{"model": "tiny", "prompt": TEXT, "temperature": 0, **fields})


def post(url: str, path: str, **fields: Any) -> Any:
    answer = httpx.post(f"{url}{path}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_completion_has_openais_shape_and_sixteen_tokens(client: OpenAI) -> None:
    said = complete(client)
    assert (said.object, said.model) == ("text_completion", "tiny")
    assert said.id.startswith("cmpl-")
    choice = said.choices[0]
    assert (choice.index, choice.logprobs) == (0, None)
    assert said.usage.completion_tokens == 16 or choice.finish_reason == "stop"
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == choice.text
    assert chunks[-1].usage.total_tokens == said.usage.total_tokens


def test_the_four_forms_of_a_prompt_agree(client: OpenAI, url: str) -> None:
    ids = post(url, "/tokenize", model="tiny", prompt=TEXT)["tokens"]
    one, by_ids = complete(client).choices, complete(client, prompt=ids).choices
    assert by_ids[0].text == one[0].text
    for prompt in ([TEXT, "Hello"], [ids, post(url, "/tokenize", model="tiny", prompt="Hello")["tokens"]]):
        said = complete(client, prompt=prompt, n=2)
        assert [choice.index for choice in said.choices] == [0, 1, 2, 3]
        assert said.choices[0].text == said.choices[1].text == one[0].text
        assert said.choices[2].text == complete(client, prompt="Hello").choices[0].text
    streamed: dict[int, str] = {}
    for chunk in complete(client, prompt=[TEXT, "Hello"], stream=True):
        streamed[chunk.choices[0].index] = streamed.get(chunk.choices[0].index, "") + chunk.choices[0].text
    assert streamed == {
        i: complete(client, prompt=text).choices[0].text for i, text in enumerate([TEXT, "Hello"])
    }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [0, 3])
def test_an_echoed_prompt_is_told_with_its_log_probabilities(
    client: OpenAI, stream: bool, limit: int
) -> None:
    said = complete(client, echo=True, logprobs=2, max_tokens=limit, stream=stream)
    choices = [chunk.choices[0] for chunk in said] if stream else [said.choices[0]]
    text = "".join(choice.text for choice in choices)
    told = [choice.logprobs for choice in choices if choice.logprobs]
    tokens = [token for each in told for token in each.tokens]
    logprobs = [value for each in told for value in each.token_logprobs]
    best = [row for each in told for row in each.top_logprobs]
    offsets = [place for each in told for place in each.text_offset]
    assert text.startswith(TEXT)
    assert (text == TEXT) == (limit == 0)
    assert logprobs[0] is best[0] is None
    assert len(tokens) == len(logprobs) == len(best) == len(offsets)
    assert all(value <= 0 for value in logprobs[1:])
    assert all(len(row) in (2, 3) for row in best[1:])
    assert offsets == sorted(offsets)
    assert all(
        text[place:].startswith(token)
        for token, place in zip(tokens, offsets, strict=True)
        if not token.startswith("bytes:")
    )
    assert choices[-1].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_the_token_that_ends_a_text_is_told_as_well(client: OpenAI, url: str, stream: bool) -> None:
    """Clients that echo a text for its log-probabilities drop the last one told: that of the one token asked for."""
    (end,) = post(url, "/tokenize", model="tiny", prompt=STOP)["tokens"]
    ids = post(url, "/tokenize", model="tiny", prompt=TEXT)["tokens"]
    said = complete(client, echo=True, logprobs=1, max_tokens=1, logit_bias={end: 100}, stream=stream)
    choices = [chunk.choices[0] for chunk in said] if stream else said.choices
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.tokens]
    assert (len(tokens), tokens[-1]) == (len(ids) + 1, STOP)
    assert ("".join(choice.text for choice in choices), choices[-1].finish_reason) == (TEXT, "stop")


def test_the_greedy_token_is_the_best_one_told(client: OpenAI) -> None:
    told = complete(client, logprobs=1, max_tokens=5).choices[0].logprobs
    for token, logprob, best in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert best == {token: logprob}
    echoed = complete(client, prompt=TEXT + "".join(told.tokens[:1]), echo=True, logprobs=1, max_tokens=0)
    assert echoed.usage.completion_tokens == 0
    assert complete(client, echo=True, logprobs=0, max_tokens=1).choices[0].logprobs.top_logprobs is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"), ({"prompt": [TEXT, 3]}, "prompt"), ({"prompt": [9**9]}, "prompt"), ({"prompt": ""}, "prompt"),
        ({"prompt": "x " * 999}, "prompt"), ({"logprobs": 6}, "logprobs"), ({"max_tokens": 0}, "max_tokens"), ({"suffix": "."}, "suffix"),
        ({"best_of": 2, "n": 3}, "best_of"), ({"extra_body": {"messages": []}}, "messages"),
    ],
)  # fmt: skip
def test_a_completion_that_cannot_be_is_a_400(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    for stream in (False, True):
        with pytest.raises(BadRequestError) as caught:
            complete(client, stream=stream, **fields)
        assert caught.value.param == param


def test_tokens_have_vllms_shape_and_come_back_as_text(url: str) -> None:
    told = post(url, "/tokenize", model="tiny", prompt=TEXT, return_token_strs=True)
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == 256
    assert post(url, "/detokenize", model="tiny", tokens=told["tokens"]) == {"prompt": TEXT}
    assert (
        post(url, "/tokenize", model="tiny", prompt=TEXT, add_special_tokens=False)["tokens"]
        == told["tokens"]
    )
    framed, bare = [
        post(url, "/tokenize", model="vectors", prompt="Hello", add_special_tokens=framed)["count"]
        for framed in (True, False)
    ]
    assert framed > bare
    chat = [{"role": "user", "content": "Hi"}]
    opened = post(url, "/tokenize", model="tiny", messages=chat)
    closed = post(url, "/tokenize", model="tiny", messages=chat, add_generation_prompt=False)
    assert closed["tokens"] == opened["tokens"][: closed["count"]]
    assert post(url, "/detokenize", model="tiny", tokens=opened["tokens"])["prompt"].endswith(
        "<|im_start|>assistant\n"
    )


def test_answers_are_scored_by_the_mean_probability_of_their_tokens(url: str) -> None:
    told = post(url, "/v1/score", model="tiny", text_1="Hi", text_2=["Hello", "你好"])
    assert [row["index"] for row in told["data"]] == [0, 1]
    assert all(0 < row["score"] < 1 and row["logprob"] < 0 for row in told["data"])
    messages = [{"role": "user", "content": "Hi"}]
    same = post(url, "/score", model="tiny", messages=messages, text_2=["Hello", "你好"])
    assert same["data"] == told["data"]
    assert told["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("model", ["tiny", "vectors"])
def test_documents_are_told_best_first(url: str, model: str) -> None:
    texts = ["It ships today", "Good bye", "今天发货"]
    told = post(
        url, "/v1/rerank", model=model, query="Where is it?", documents=[*texts[:2], {"text": texts[2]}]
    )
    scores = [row["relevance_score"] for row in told["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(row["document"]["text"] == texts[row["index"]] for row in told["results"])
    best = post(
        url, "/rerank", model=model, query="Where is it?", documents=texts, top_n=1, return_documents=False
    )
    assert best["results"] == [{"index": told["results"][0]["index"], "relevance_score": scores[0]}]
