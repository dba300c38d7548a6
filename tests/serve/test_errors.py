# ruff: noqa: E501  (bad bodies are easier to read unbroken)
"""Errors: always OpenAI's shape, the field's name, and no content."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialoop.backends.echo import EchoEngine
from dialoop.errors import OverloadedError, RequestError
from dialoop.serve.wire import parse_chat
from dialoop.types import ChatRequest, Delta
from tests.serve.bodies import FIELDS, json_values, messages
from tests.serve.running import serving

SECRET = "my private words " * 8
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(EchoEngine(), max_body_bytes=20_000) as url, httpx.Client(base_url=url) as client:
        yield client


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": "Hi"}], **fields}


def error_of(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert len(answer.content) < 2000
    return error  # type: ignore[no-any-return]


BOUNDS: list[tuple[str, Any]] = [
    ("temperature", -0.1), ("temperature", 2.1), ("temperature", "1"), ("temperature", True),
    ("top_p", -0.01), ("top_p", 1.01), ("n", 0), ("n", 129), ("n", 1.5), ("n", True), ("n", 10**30),
    ("best_of", 0), ("best_of", 129), ("prompt_logprobs", -1), ("prompt_logprobs", 21), ("echo", 1),
    ("max_tokens", 0), ("max_tokens", -5), ("max_completion_tokens", 0), ("max_tokens", 2**31),
    ("stop", ["a", "b", "c", "d", "e"]), ("stop", ""), ("stop", [""]), ("stop", 3), ("stop", {"a": 1}),
    ("seed", 2**63), ("seed", 1.0), ("stream", "yes"), ("stream", 1), ("messages", []), ("messages", "Hi"),
    ("frequency_penalty", 2.1), ("presence_penalty", -2.1), ("frequency_penalty", False), ("logprobs", 3),
    ("top_logprobs", 21), ("top_logprobs", 2), ("logit_bias", {"5": 101}), ("logit_bias", {"x": 1}),
    ("logit_bias", [5]), ("top_k", -2), ("top_k", 1.5), ("min_p", 1.1), ("typical_p", 0),
    ("repetition_penalty", 0), ("min_tokens", -1), ("ignore_eos", 1), ("stop_token_ids", [-1]),
    ("stop_token_ids", 5), ("logprobs_mode", "raw"),
    ("response_format", {"type": "json_schema"}), ("response_format", "json"),
    ("structured_outputs", {"json": {}, "regex": "a"}),
    ("model", 4), ("service_tier", "gold"), ("safety_identifier", "x" * 65), ("stream_options", {}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), BOUNDS)
def test_a_value_out_of_bounds_is_a_400_that_names_the_field(
    client: httpx.Client, field: str, value: Any
) -> None:
    error = error_of(client.post(CHAT, json=body(**{field: value})))
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"
    assert field in error["message"]


REFUSED: list[tuple[str, Any]] = [
    ("audio", {"voice": "x"}), ("modalities", ["text", "audio"]), ("web_search_options", {}),
    ("chat_template", "{{ messages }}"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_a_field_that_is_not_served_is_refused_by_name(client: httpx.Client, field: str, value: Any) -> None:
    error = error_of(client.post(CHAT, json=body(**{field: value})))
    assert (error["param"], error["code"]) == (field, "unsupported")
    assert "is not served" in error["message"]
    assert "leave it out" in error["message"]


F = {"type": "function", "function": {"name": "f"}}
TOOLS: list[tuple[dict[str, Any], str]] = [
    ({"tools": ["f"]}, "tools[0]"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parametres": {}}}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]}, "tools[0].function.strict"),
    ({"tools": [{"type": "custom", "custom": {"name": "f", "format": {"type": "xml"}}}]}, "tools[0].custom.format.type"),
    ({"tools": [{"type": "web_search", "function": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [F, F]}, "tools"),
    ({"tools": [F] * 129}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [F], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [F], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    ({"tools": [F], "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice"),
    ({"tools": [F], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
    (
        {"tools": [F], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{}]}}},
        "tool_choice.allowed_tools.tools",
    ),
    ({"tools": [F], "parallel_tool_calls": 1}, "parallel_tool_calls"),
    ({"tools": [F], "functions": [{"name": "f"}]}, "functions"),
    ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    ({"metadata": {"k": "v" * 513}}, "metadata"),
    ({"metadata": {str(i): "v" for i in range(17)}}, "metadata"),
    ({"prediction": {"type": "content", "content": [{"x": 1}]}}, "prediction.content"),
    ({"prediction": "x"}, "prediction"),
    ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ({"priority": 9}, "priority"),
    ({"bad_words": [""]}, "bad_words"),
    ({"allowed_token_ids": []}, "allowed_token_ids"),
    ({"guided_json": {}, "guided_regex": "a"}, "guided_regex"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"typ": "string"}}}}, "response_format"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), TOOLS)
def test_a_field_that_does_not_fit_is_named(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    assert error_of(client.post(CHAT, json=body(**fields)))["param"] == param


def test_a_scripted_engine_cannot_be_made_to_call(client: httpx.Client) -> None:
    error = error_of(client.post(CHAT, json=body(tools=[F], tool_choice="required")))
    assert (error["param"], error["code"]) == ("tool_choice", "unsupported")
    assert client.post(CHAT, json=body(tools=[F])).status_code == 200


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "Hi"}), ("/tokenize", {"prompt": "Hi"}), ("/detokenize", {"tokens": [1]}),
        ("/v1/score", {"text_1": "a", "text_2": "b"}), ("/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("/v1/classify", {"input": "a"}),
    ],
)  # fmt: skip
def test_what_an_engine_cannot_do_is_unsupported(
    client: httpx.Client, path: str, fields: dict[str, Any]
) -> None:
    assert error_of(client.post(path, json={"model": "echo", **fields}))["code"] == "unsupported"


@pytest.mark.parametrize(
    ("field", "value"),
    [("logprobs", True), ("prompt_logprobs", 0), ("response_format", {"type": "json_object"})],
)
def test_a_scripted_engine_says_what_it_cannot_do(client: httpx.Client, field: str, value: Any) -> None:
    error = error_of(client.post(CHAT, json=body(**{field: value})))
    assert (error["param"], error["code"]) == (field, "unsupported")


@pytest.mark.parametrize(("wrong", "right"), [("temprature", "temperature"), ("max_token", "max_tokens")])
def test_an_unknown_field_is_a_400_with_the_nearest_name(
    client: httpx.Client, wrong: str, right: str
) -> None:
    error = error_of(client.post(CHAT, json=body(**{wrong: 1})))
    assert error["param"] == wrong
    assert f"did you mean '{right}'" in error["message"]


MESSAGES: list[tuple[Any, str]] = [
    ("Hi", "messages[0]"),
    ({"content": "Hi"}, "messages[0]"),
    ({"role": "robot", "content": "Hi"}, "messages[0].role"),
    ({"role": ["user"], "content": "Hi"}, "messages[0].role"),
    ({"role": "function", "content": "Hi"}, "messages[0].name"),
    ({"role": "user", "content": [{"type": "text", "text": "Hi", "txt": 1}]}, "messages[0].content[0]"),
    ({"role": "user"}, "messages[0].content"),
    ({"role": "user", "content": 5}, "messages[0].content"),
    ({"role": "user", "content": []}, "messages[0].content"),
    ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[0].content[0]"),
    ({"role": "user", "content": "Hi", "contents": "x"}, "messages[0].contents"),
    ({"role": "user", "content": "Hi", "tool_call_id": "x"}, "messages[0].tool_call_id"),
    ({"role": "assistant"}, "messages[0].content"),
    ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
    ({"role": "assistant", "tool_calls": [{"id": "x"}]}, "messages[0].tool_calls[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "param"), MESSAGES)
def test_a_bad_message_is_named_by_its_path(client: httpx.Client, message: Any, param: str) -> None:
    error = error_of(client.post(CHAT, json=body(messages=[message])))
    assert error["param"].startswith(param)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe{}", b'{"model": NaN}', b'{"n": 1, "n": 2}', b"[" * 1000,
        b'{"model": "echo", "messages": [{"role": "user", "content": "\\ud83d"}]}',
        b'{"n": ' + b"9" * 5000 + b"}", b'{"a":' * 3000 + b"1" + b"}" * 3000,
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_a_400(client: httpx.Client, raw: bytes) -> None:
    error_of(client.post(CHAT, content=raw, headers={"content-type": "application/json"}))


def test_a_body_too_large_is_a_413_whether_or_not_it_says_so(client: httpx.Client) -> None:
    large = json.dumps(body(messages=[{"role": "user", "content": "x" * 20_001}])).encode()
    headers = {"content-type": "application/json"}
    assert "20000 bytes" in error_of(client.post(CHAT, content=large, headers=headers), 413)["message"]
    pieces = (large[i : i + 1000] for i in range(0, len(large), 1000))
    error_of(client.post(CHAT, content=pieces, headers=headers), 413)


def test_another_content_type_or_a_compressed_body_is_a_415(client: httpx.Client) -> None:
    error_of(client.post(CHAT, content=b"{}", headers={"content-type": "text/plain"}), 415)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    error_of(client.post(CHAT, content=b"{}", headers=headers), 415)


def test_unknown_routes_and_methods_have_the_shape_too(client: httpx.Client) -> None:
    error_of(client.get("/v1/nothing"), 404)
    error_of(client.get("/v1/chat/completions/"), 404)
    answer = client.get(CHAT)
    error_of(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_content_is_never_repeated(client: httpx.Client) -> None:
    bad: list[dict[str, Any]] = [
        body(messages=[{"role": "user", "content": {"text": SECRET}}]),
        body(messages=[{"role": SECRET, "content": "Hi"}]),
        body(messages=[{"role": "user", "content": "Hi", SECRET: 1}]),
        body(stop=[SECRET] * 9),
        body(temperature=SECRET),
        body(model=SECRET),
        body(**{SECRET: 1}),
        body(stream=True, stream_options={SECRET: 1}),
        body(metadata={"note": SECRET * 9}),
    ]
    for each in bad:
        answer = client.post(CHAT, json=each)
        assert 400 <= answer.status_code < 500
        assert SECRET not in answer.text


def refusal_of(chat: dict[str, Any]) -> RequestError | None:
    try:
        parse_chat(chat)
    except RequestError as error:
        return error
    return None


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4), messages)
def test_any_body_is_read_or_refused_with_a_field(fields: dict[str, Any], rows: Any) -> None:
    for refusal in (refusal_of(body(**fields)), refusal_of(body(messages=rows)), refusal_of(fields)):
        assert refusal is None or (refusal.param and len(str(refusal)) < 1000)


@settings(deadline=None, max_examples=20)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4), messages)
def test_no_body_makes_the_server_fail(client: httpx.Client, fields: dict[str, Any], rows: Any) -> None:
    for each in (body(**fields), body(messages=rows)):
        assert client.post(CHAT, json=each).status_code < 500


class FailingEngine(EchoEngine):
    """Fails when told: at once, or after its first words."""

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:  # type: ignore[override]
        asked = request.conversation.messages[-1].content
        if asked == "busy":
            raise OverloadedError("the queue is full: try again", retry_after=3)
        if asked == "late":
            yield Delta(0, "Well, ")
        raise RuntimeError(SECRET)


@pytest.fixture(scope="module")
def failing() -> Iterator[str]:
    with serving(FailingEngine()) as url:
        yield url


def test_an_engine_failure_is_a_500_that_tells_nothing(
    failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    for stream in (False, True):
        chat = body(messages=[{"role": "user", "content": "now"}], stream=stream)
        error = error_of(httpx.post(failing + CHAT, json=chat), 500)
        assert error["type"] == "server_error"
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text + str(error)


def test_a_failure_in_the_middle_of_a_stream_is_an_error_event(failing: str) -> None:
    client = openai.OpenAI(base_url=f"{failing}/v1", api_key="none", max_retries=0)
    stream = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "late"}], stream=True
    )
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "Well, "]
    with pytest.raises(openai.APIError, match="failed to answer"):
        next(stream)
    client.close()


def test_an_overloaded_engine_is_a_429_with_retry_after(failing: str) -> None:
    answer = httpx.post(failing + CHAT, json=body(messages=[{"role": "user", "content": "busy"}]))
    error_of(answer, 429)
    assert answer.headers["retry-after"] == "3"
