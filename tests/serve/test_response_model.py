"""Responses of a real, if random, model: formats, calls and log-probabilities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from openai import OpenAI
from pydantic import BaseModel

from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.types import ModelRef
from tests.serve.test_responses import asking
from tests.tiny import make_tiny_model

ASKED: dict[str, Any] = {"model": "tiny", "input": "Refund order 12", "temperature": 0}
REFUND: dict[str, Any] = {
    "type": "function",
    "name": "refund",
    "description": "Pay back",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"why": {"enum": ["late", "破损"]}},
        "required": ["why"],
        "additionalProperties": False,
    },
}
NOTE = {
    "type": "custom", "name": "note",
    "format": {"type": "grammar", "syntax": "regex", "definition": "[A-Z]{2}"},
}  # fmt: skip
LOGPROBS: Any = ["message.output_text.logprobs"]


class Complaint(BaseModel):
    """What an answer is parsed to."""

    kind: Literal["late", "broken"]
    urgent: bool


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"), context=1024)
    engine = LocalEngine({"tiny": open_model(ModelRef("tiny", folder))})
    with asking(engine, tmp_path_factory.mktemp("home")) as client:
        yield client


def test_an_answer_is_parsed_to_a_pydantic_model(client: OpenAI) -> None:
    said = client.responses.parse(**ASKED, text_format=Complaint)
    assert isinstance(said.output_parsed, Complaint)
    assert said.text
    assert said.text.format
    assert said.text.format.type == "json_schema"
    with client.responses.stream(**ASKED, text_format=Complaint) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == said.output_parsed


def test_an_answer_is_any_json_object(client: OpenAI) -> None:
    said = client.responses.create(**ASKED, text={"format": {"type": "json_object"}}, max_output_tokens=40)
    assert isinstance(json.loads(said.output_text), dict)


def test_a_call_its_result_and_the_answer_go_round(client: OpenAI) -> None:
    named: Any = {"type": "function", "name": "refund"}
    first = client.responses.create(**ASKED, tools=[REFUND], tool_choice=named, max_output_tokens=80)
    (call,) = first.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["why"] in ("late", "破损")
    assert first.tools[0].model_dump()["strict"] is True
    second = client.responses.create(
        model="tiny", previous_response_id=first.id, tools=[REFUND], max_output_tokens=8,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": '{"paid": true}'}],
    )  # fmt: skip
    assert second.output[-1].type == "message"
    assert second.usage
    assert first.usage
    assert second.usage.input_tokens > first.usage.input_tokens


def test_a_stream_of_calls_joins_to_the_whole(client: OpenAI) -> None:
    asked = {**ASKED, "tools": [REFUND, NOTE], "tool_choice": "required", "max_output_tokens": 80}
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_response()
    told = [item.model_dump(exclude={"id", "call_id", "parsed_arguments"}) for item in final.output]
    assert told == [item.model_dump(exclude={"id", "call_id"}) for item in whole.output]
    deltas = [event.delta for event in events if event.type.endswith("arguments.delta")]
    calls = [item.arguments for item in whole.output if item.type == "function_call"]
    assert "".join(deltas) == "".join(calls)


def test_only_allowed_tools_are_called(client: OpenAI) -> None:
    allowed: Any = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "custom", "name": "note"}],
    }
    said = client.responses.create(
        **ASKED, tools=[REFUND, NOTE], tool_choice=allowed, parallel_tool_calls=False, max_output_tokens=80
    )
    (call,) = said.output
    assert call.type == "custom_tool_call"
    assert (call.name, len(call.input)) == ("note", 2)


def test_log_probabilities_are_the_same_whole_and_streamed(client: OpenAI) -> None:
    asked = {**ASKED, "include": LOGPROBS, "top_logprobs": 3, "max_output_tokens": 8}
    part = client.responses.create(**asked).output[0].content[0]
    told = part.logprobs
    assert told
    assert all(len(each.top_logprobs) == 3 and each.logprob <= 0 for each in told)
    assert b"".join(bytes(each.bytes) for each in told).decode(errors="replace") == part.text
    events = list(client.responses.create(**asked, stream=True))
    done = next(event for event in events if event.type == "response.output_text.done")
    assert [each.model_dump() for each in done.logprobs] == [each.model_dump() for each in told]
    assert client.responses.create(**{**ASKED, "max_output_tokens": 8}).output[0].content[0].logprobs == []


def test_a_prompt_that_was_read_before_is_told_as_cached(client: OpenAI) -> None:
    asked = {**ASKED, "input": "Where is my order? " * 12, "max_output_tokens": 2}
    first, second = (client.responses.create(**asked).usage for _ in range(2))
    assert second.input_tokens_details.cached_tokens > first.input_tokens_details.cached_tokens
