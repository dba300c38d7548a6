"""An upstream as an engine, over real HTTP: our own server, and one that fails as it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest
import pytest_asyncio

from dialoop.backends.echo import EchoEngine
from dialoop.backends.remote import RemoteEngine
from dialoop.backends.upstream import Upstream, upstream_from
from dialoop.errors import (
    ConfigError,
    ContextLengthError,
    EngineDownError,
    OverloadedError,
    RequestError,
    UnknownModelError,
)
from dialoop.types import Delta, Sampling, fold
from tests.backends.faulty import (
    ASKED,
    DONE,
    Faulty,
    ask,
    chunk,
    cut,
    error,
    hangs,
    heard,
    running,
    says,
    streams,
    usage,
    whole,
)
from tests.conformance.engine import EngineConformance
from tests.serve.running import serving

KEY = "sk-a-secret-that-nobody-may-see"


@pytest.fixture(scope="module")
def dialoop_url() -> Iterator[str]:
    behind = EchoEngine(context=200)
    with serving(behind) as url:
        yield url
    assert behind.open == 0


class TestRemoteEngineConforms(EngineConformance):
    @pytest_asyncio.fixture
    async def engine(self, dialoop_url: str) -> AsyncIterator[RemoteEngine]:
        engine = await heard(f"{dialoop_url}/v1")
        yield engine
        await engine.aclose()

    @pytest_asyncio.fixture
    async def crowded_engine(self, engine: RemoteEngine) -> AsyncIterator[RemoteEngine]:
        yield engine


async def test_its_models_are_those_it_tells(engine: RemoteEngine) -> None:
    (served,) = engine.models()
    assert (served.name, served.created, served.context, served.owner) == ("m", 7, 99, "dialoop")


async def test_models_can_be_served_under_other_names(faulty: Faulty, url: str) -> None:
    engine = await heard(url, models={"gpt-4o": "m", "gone": "other"})
    assert [served.name for served in engine.models()] == ["gpt-4o"]
    await ask(engine, replace(ASKED, model="gpt-4o"))
    assert faulty.seen[-1][1]["model"] == "m"
    await engine.aclose()


@pytest.mark.parametrize(
    ("owner", "kind"),
    [("vllm", "vllm"), ("llamacpp", "llama.cpp"), ("library", "ollama"), ("system", "openai")],
)
async def test_its_kind_is_told_by_its_models(owner: str, kind: str) -> None:
    with running(Faulty(owner)) as url:
        engine = await heard(url)
        assert engine.kind == kind
        await engine.aclose()


async def test_the_usage_is_passed_on_with_the_last_delta(faulty: Faulty, engine: RemoteEngine) -> None:
    details = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    last = b"data: " + json.dumps({"choices": [], "usage": details}).encode() + b"\n\n"
    faulty.acts = [streams(chunk("Hi"), chunk(end="stop"), last, DONE)]
    deltas = [delta async for delta in engine.chat(ASKED)]
    assert [delta.usage is None for delta in deltas] == [True, False]
    usage_told = deltas[-1].usage
    assert usage_told
    assert (usage_told.prompt_tokens, usage_told.completion_tokens, usage_told.cached_tokens) == (5, 2, 4)


async def test_an_upstream_without_usage_has_its_pieces_counted(faulty: Faulty, engine: RemoteEngine) -> None:
    faulty.acts = [streams(chunk("Hi"), chunk(" you"), chunk(end="stop"), DONE)]
    assert (await ask(engine))[0].usage.completion_tokens == 2


async def test_events_may_be_cut_anywhere_and_commented(faulty: Faulty, engine: RemoteEngine) -> None:
    raw = (
        b": ping\r\n\r\n"
        + chunk("你好\u2028 there").replace(b"\n", b"\r\n")
        + chunk(end="stop")
        + usage()
        + DONE
    )
    faulty.acts = [streams(*(raw[i : i + 1] for i in range(len(raw))))]
    assert (await ask(engine))[0].text == "你好\u2028 there"


async def test_log_probabilities_keep_their_bytes(faulty: Faulty, engine: RemoteEngine) -> None:
    top = [
        {"token": "\ufffd", "logprob": -0.5, "bytes": [228]},
        {"token": "b", "logprob": -1.5, "bytes": None},
    ]
    told = {"content": [{**top[0], "top_logprobs": top}]}
    choice = {"index": 0, "delta": {"content": "你"}, "logprobs": told, "finish_reason": None}
    first = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    faulty.acts = [streams(first, chunk(end="stop"), DONE)]
    (answer,) = await ask(engine, logprobs=1)
    assert [(each.data, each.logprob) for each in answer.logprobs] == [(b"\xe4", -0.5)]
    assert [each.data for each in answer.logprobs[0].top] == [b"\xe4"]


async def test_answers_that_are_not_streamed_there_come_whole(faulty: Faulty, engine: RemoteEngine) -> None:
    place = {"7": {"logprob": -0.5, "rank": 1, "decoded_token": "Hi"}}
    choices = [{"index": 0, "message": {"content": "Yes"}, "finish_reason": "length"}]
    faulty.acts = [whole(200, {"choices": choices, "prompt_logprobs": [None, place]})]
    (answer,) = await ask(engine, prompt_logprobs=0)
    assert faulty.seen[-1][1]["stream"] is False
    assert (answer.text, answer.finish_reason) == ("Yes", "length")
    assert [len(place) for place in answer.prompt_logprobs] == [0, 1]
    assert answer.prompt_logprobs[1][0].data == b"Hi"


BROKEN = [
    pytest.param(error(500), "HTTP 500", id="a 500"),
    pytest.param(error(503), "HTTP 503", id="a 503"),
    pytest.param(whole(502, b"<html>Bad gateway"), "HTTP 502", id="a proxy's page"),
    pytest.param(whole(307, {}, {"location": "http://127.0.0.1:1/"}), "HTTP 307", id="a redirection"),
    pytest.param(error(401, f"wrong key {KEY}"), "key", id="a key refused"),
    pytest.param(error(404, "no page"), "/v1", id="another route"),
    pytest.param(streams(b": alive\n\n", then=cut), "cannot be reached", id="a connection that ends"),
    pytest.param(streams(b"data: {\n\n"), "no answer", id="half an object"),
    pytest.param(streams(b"data: []\n\n"), "no answer", id="another type"),
    pytest.param(streams(b'data: {"choices": [{"index": "x"}]}\n\n'), "no answer", id="another field"),
    pytest.param(streams(b"hello\n\n", DONE), "broke off", id="no event at all"),
    pytest.param(streams(b'data: {"error": {"message": "boom"}}\n\n'), "HTTP 500", id="a late error"),
    pytest.param(streams(b"data: " + b"x" * 9_000_000), "without end", id="an event without end"),
    pytest.param(streams(DONE), "broke off", id="nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "told"), BROKEN)
async def test_a_broken_upstream_is_down_before_the_first_delta(
    faulty: Faulty, engine: RemoteEngine, act: Any, told: str
) -> None:
    faulty.acts = [act]
    with pytest.raises(EngineDownError, match=told) as caught:
        await anext(engine.chat(ASKED))
    assert KEY not in str(caught.value)
    assert "boom" not in str(caught.value)


@pytest.mark.parametrize(
    "rest",
    [streams(chunk("Hi"), then=cut), streams(chunk("Hi")), streams(chunk("Hi"), chunk(end="abort"), DONE),
     streams(chunk("Hi"), chunk("you", index=5), DONE), streams(chunk("Hi"), b"data: nonsense\n\n")],
    ids=["a cut connection", "an early end", "an unknown reason", "another index", "nonsense"],
)  # fmt: skip
async def test_an_answer_that_breaks_off_is_an_error_after_what_was_said(
    faulty: Faulty, engine: RemoteEngine, rest: Any
) -> None:
    faulty.acts = [rest]
    deltas = engine.chat(ASKED)
    assert (await anext(deltas)).text == "Hi"
    with pytest.raises(EngineDownError):
        await fold(deltas)


async def test_nobody_there_is_an_engine_that_is_down() -> None:
    engine = RemoteEngine("up", Upstream(url="http://127.0.0.1:9/v1"))
    assert engine.health() == "starting"
    with pytest.raises(EngineDownError, match="up cannot be reached"):
        await engine.refresh()
    await engine.aclose()


@pytest.mark.parametrize("began", [False, True])
async def test_silence_is_waited_for_so_long_and_no_longer(faulty: Faulty, url: str, began: bool) -> None:
    waits = {"first_token_seconds": 30.0, "between_tokens_seconds": 30.0}
    waits["between_tokens_seconds" if began else "first_token_seconds"] = 0.2
    engine = await heard(url, **waits)
    faulty.acts = [streams(*([chunk("Hi")] if began else [b": alive\n\n"]), then=hangs)]
    with pytest.raises(EngineDownError, match="in time"):
        await ask(engine)
    assert await asyncio.to_thread(faulty.left.acquire, timeout=30)
    await engine.aclose()


async def test_hanging_up_hangs_up_upstream(faulty: Faulty, engine: RemoteEngine) -> None:
    faulty.acts = [streams(chunk("Hi"), then=hangs)]
    async with aclosing(cast(AsyncGenerator[Delta, None], engine.chat(ASKED))) as deltas:
        assert (await anext(deltas)).text == "Hi"
    assert await asyncio.to_thread(faulty.left.acquire, timeout=30)
    assert engine.health() == "ok"


@pytest.mark.parametrize(
    ("given", "wait"), [("7", 7), ("0.2", 1), ("Wed, 21 Oct 2065 07:28:00 GMT", 3600), ("soon", 1), ("-1", 1)]
)
async def test_an_upstream_that_is_full_says_when_to_come_again(
    faulty: Faulty, engine: RemoteEngine, given: str, wait: int
) -> None:
    faulty.acts = [error(429, headers={"retry-after": given})]
    with pytest.raises(OverloadedError) as caught:
        await ask(engine)
    assert caught.value.retry_after == wait


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"message": "the prompt has 120 tokens, the model's context holds 99: shorten"}, (120, 99)),
        ({"message": "This model's maximum context length is 99 tokens. However, your messages resulted in "
                     "120 tokens."}, (120, 99)),
        ({"message": "too long", "n_prompt_tokens": 120, "n_ctx": 99}, (120, 99)),
    ],
)  # fmt: skip
async def test_a_prompt_too_long_there_is_too_long_here(
    faulty: Faulty, engine: RemoteEngine, fields: dict[str, Any], numbers: tuple[int, int]
) -> None:
    faulty.acts = [error(400, **fields)]
    with pytest.raises(ContextLengthError) as caught:
        await ask(engine)
    assert (caught.value.prompt_tokens, caught.value.limit) == numbers


@pytest.mark.parametrize(
    "shape", [{"error": {"message": "no\nthanks", "param": "top_p"}}, {"detail": "no thanks"}]
)
async def test_a_refusal_is_passed_on_on_one_line(
    faulty: Faulty, engine: RemoteEngine, shape: dict[str, Any]
) -> None:
    faulty.acts = [whole(400, shape)]
    with pytest.raises(RequestError, match=r"up refused the request \(HTTP 400\): no thanks$"):
        await ask(engine)
    assert engine.health() == "ok"


async def test_a_model_that_is_gone_there_is_unknown(faulty: Faulty, engine: RemoteEngine) -> None:
    faulty.acts = [error(404, "The model `m` does not exist", code="model_not_found")]
    with pytest.raises(UnknownModelError):
        await ask(engine)


async def test_after_some_failures_it_is_left_alone_and_then_tried_once(faulty: Faulty, url: str) -> None:
    engine = await heard(url, failures=2, rest_seconds=0.3)
    faulty.acts = [error(500), error(500)]
    for _ in range(2):
        with pytest.raises(EngineDownError, match="HTTP 500"):
            await ask(engine)
    assert engine.health() == "failed"
    with pytest.raises(EngineDownError, match="left alone"):
        await ask(engine)
    assert len(faulty.seen) == 2
    while engine.health() == "failed":
        try:
            await ask(engine)
        except EngineDownError:
            await asyncio.sleep(0.02)
    assert len(faulty.seen) == 3
    await engine.aclose()


async def test_refusals_leave_no_mark(faulty: Faulty, url: str) -> None:
    engine = await heard(url, failures=1)
    faulty.acts = [error(400), error(429)]
    for _ in range(2):
        with pytest.raises(RequestError):
            await ask(engine)
    assert (await ask(engine))[0].text == "Hi there"
    await engine.aclose()


async def test_the_key_comes_from_the_environment_at_each_request(
    faulty: Faulty, engine: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(engine)
    assert "authorization" not in faulty.seen[-1][0]
    monkeypatch.setenv("DIALOOP_UPSTREAM_UP_KEY", KEY)
    await ask(engine)
    assert faulty.seen[-1][0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(vars(engine))


def test_a_key_that_was_named_and_is_not_there_is_an_error_at_the_start() -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE"):
        RemoteEngine("up", Upstream(url="http://127.0.0.1:1/v1", key_env="NO_SUCH_VARIABLE"))


def test_a_key_that_cannot_be_sent_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALOOP_UPSTREAM_UP_KEY", "sk-secret\nx: y")
    with pytest.raises(ConfigError) as caught:
        RemoteEngine("up", Upstream(url="http://127.0.0.1:1/v1"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "flag", ["x", "=http://a/v1", "a b=http://a/v1", "a=ftp://b", "a=http://u:p@b/v1", "a="]
)
def test_an_upstream_that_cannot_be_is_refused(flag: str) -> None:
    with pytest.raises(ConfigError):
        upstream_from(flag)


async def test_texts_are_embedded_upstream(faulty: Faulty, engine: RemoteEngine) -> None:
    rows = [{"embedding": [1.0, 0.0]}, {"embedding": [0.0, 1.0]}]
    faulty.acts = [whole(200, {"data": rows, "usage": {"prompt_tokens": 4}}), whole(200, {"data": rows[:1]})]
    found = await engine.embed("m", ["a", [1, 2]], dimensions=2)
    assert (found.vectors, found.prompt_tokens) == (((1.0, 0.0), (0.0, 1.0)), 4)
    assert faulty.seen[-1][1]["dimensions"] == 2
    with pytest.raises(EngineDownError):
        await engine.embed("m", ["a", "b"])


async def test_more_answers_may_end_in_any_order(faulty: Faulty, engine: RemoteEngine) -> None:
    faulty.acts = [
        streams(
            chunk("b", index=1), chunk(end="length", index=1), chunk("a"), chunk(end="stop"), usage(), DONE
        )
    ]
    deltas = [delta async for delta in engine.chat(replace(ASKED, sampling=Sampling(n=2)))]
    assert [(delta.index, delta.finish_reason) for delta in deltas if delta.finish_reason] == [
        (1, "length"),
        (0, "stop"),
    ]
    assert [delta.usage is not None for delta in deltas] == [False, False, False, True]


async def test_a_model_it_did_not_tell_of_is_refused_without_asking(
    faulty: Faulty, engine: RemoteEngine
) -> None:
    with pytest.raises(UnknownModelError, match="m"):
        await ask(engine, replace(ASKED, model="other"))
    assert not faulty.seen
    faulty.acts = [says("Well")]
    assert (await ask(engine))[0].text == "Well"
