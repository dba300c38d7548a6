"""What upstreams of each kind are sent for the same request."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dialoop.backends.remote import RemoteEngine
from dialoop.errors import UnsupportedError
from dialoop.types import Conversation, Grammar, Message, Prompting, Tool, ToolCall, ToolChoice
from tests.backends.faulty import ASKED, DONE, Faulty, ask, chunk, heard, sent, streams


async def test_every_parameter_reaches_another_dialoop(faulty: Faulty, engine: RemoteEngine) -> None:
    asked = {
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 5, "seed": 2**40, "n": 1, "top_k": 3, "min_p": 0.1,
        "typical_p": 0.8, "presence_penalty": 1.0, "frequency_penalty": -1.0, "repetition_penalty": 1.1,
        "min_tokens": 2, "ignore_eos": True,
    }  # fmt: skip
    body = await sent(
        faulty, engine, **asked, stop=("a", "b"), logit_bias=((5, 1.5),), stop_token_ids=(7,), logprobs=2,
        processed_logprobs=True,
    )  # fmt: skip
    del asked["n"]
    assert asked.items() <= body.items()
    assert (body["stop"], body["logit_bias"], body["stop_token_ids"]) == (["a", "b"], {"5": 1.5}, [7])
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert body["logprobs_mode"] == "processed_logprobs"
    assert body["stream_options"] == {"include_usage": True}


REFUSED = {
    "openai": {"top_k": 5, "min_p": 0.1, "typical_p": 0.5, "repetition_penalty": 2.0, "min_tokens": 1,
               "ignore_eos": True, "stop_token_ids": (1,), "best_of": 2, "prompt_logprobs": 1},
    "vllm": {"typical_p": 0.5, "best_of": 2, "processed_logprobs": True},
    "llama.cpp": {"min_tokens": 1, "stop_token_ids": (1,), "best_of": 2, "prompt_logprobs": 1},
    "ollama": {"n": 2, "logit_bias": ((1, 1.0),), "top_k": 5, "repetition_penalty": 2.0},
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_an_upstream_cannot_do_is_refused_by_name(faulty: Faulty, url: str, kind: Any) -> None:
    engine = await heard(url, kind=kind)
    for name, value in REFUSED[kind].items():
        with pytest.raises(UnsupportedError, match=kind) as caught:
            await ask(engine, **{name: value})
        assert caught.value.param == name
    assert not faulty.seen
    await engine.aclose()


async def test_each_kind_is_spoken_to_in_its_own_words(faulty: Faulty, url: str) -> None:
    engine = await heard(url, kind="openai")
    body = await sent(faulty, engine, max_tokens=9, grammar=Grammar("json_schema", '{"type": "object"}'))
    assert (body["max_completion_tokens"], body["response_format"]) == (9, {"type": "json_object"})
    assert not {"temperature", "top_p", "max_tokens", "top_k"} & body.keys()
    await engine.aclose()
    engine = await heard(url, kind="vllm")
    faulty.acts = [streams(chunk(end="stop"), chunk(end="stop", index=1), DONE)]
    body = await sent(faulty, engine, temperature=0.0, n=2, max_tokens=9)
    assert (body["temperature"], body["top_k"], body["max_tokens"], body["min_p"]) == (1.0, 1, 9, 0.0)
    body = await sent(faulty, engine, grammar=Grammar("choice", '["a", "b"]'))
    assert body["structured_outputs"] == {"choice": ["a", "b"]}
    await engine.aclose()
    engine = await heard(url, kind="llama.cpp")
    body = await sent(faulty, engine, grammar=Grammar("choice", '["a", "说\\"b"]'), logprobs=0, seed=2**33)
    assert body["grammar"] == 'root ::= "a" | "说\\"b"'
    assert (body["top_logprobs"], body["repeat_penalty"], body["top_k"]) == (1, 1.0, 0)
    assert 0 <= body["seed"] < 2**32
    with pytest.raises(UnsupportedError, match="regex"):
        await ask(engine, grammar=Grammar("regex", "a+"))
    await engine.aclose()


async def test_roles_and_fields_that_an_upstream_does_not_know_are_put_into_ones_it_does(
    faulty: Faulty, url: str
) -> None:
    turns = (Message("developer", "Be kind."), Message("user", "Hi", weight=0.0))
    engine = await heard(url, kind="vllm")
    await ask(engine, replace(ASKED, conversation=Conversation(turns)))
    assert faulty.seen[-1][1]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]
    await engine.aclose()
    engine = await heard(url, kind="openai")
    thought = Conversation((Message("assistant", "Yes", reasoning="hm"), Message("user", "Hi")))
    with pytest.raises(UnsupportedError) as caught:
        await ask(engine, replace(ASKED, conversation=thought))
    assert caught.value.param == "messages[0].reasoning_content"
    await engine.aclose()


TOOLS = (
    Tool("find", "Finds.", {"type": "object", "properties": {"id": {"type": "string"}}}),
    Tool("stop"),
)
NAMED = {"type": "function", "function": {"name": "stop"}}
DIALOGUE = replace(ASKED, conversation=replace(ASKED.conversation, tools=TOOLS))


@pytest.mark.parametrize(
    ("kind", "choice", "told"),
    [
        ("openai", ToolChoice("required", ("stop",)), (["stop"], NAMED)),
        ("llama.cpp", ToolChoice("required", ("stop",)), (["stop"], "required")),
        ("vllm", ToolChoice("auto", ("find",)), (["find"], None)),
        ("vllm", ToolChoice("none"), (["find", "stop"], "none")),
        ("ollama", ToolChoice(), (["find", "stop"], None)),
    ],
)  # fmt: skip
async def test_tools_and_what_may_be_called_reach_every_kind(
    faulty: Faulty, url: str, kind: Any, choice: ToolChoice, told: tuple[list[str], Any]
) -> None:
    engine = await heard(url, kind=kind)
    await ask(engine, replace(DIALOGUE, choice=choice))
    body = faulty.seen[-1][1]
    assert ([tool["function"]["name"] for tool in body["tools"]], body.get("tool_choice")) == told
    await engine.aclose()


async def test_choices_that_an_upstream_would_ignore_are_refused(faulty: Faulty, url: str) -> None:
    engine = await heard(url, kind="ollama")
    for choice, param in (
        (ToolChoice("required"), "tool_choice"),
        (ToolChoice(parallel=False), "parallel_tool_calls"),
    ):
        with pytest.raises(UnsupportedError) as caught:
            await ask(engine, replace(DIALOGUE, choice=choice))
        assert caught.value.param == param
    await engine.aclose()


async def test_wishes_about_the_prompt_are_told_in_each_kinds_words(faulty: Faulty, url: str) -> None:
    wishes = {"reasoning_effort": "none", "enable_thinking": False, "thinking": False, "verbosity": "low"}
    asked = replace(ASKED, prompting=Prompting(wishes=wishes), prediction="Hi")
    bodies = {}
    for kind in ("openai", "dialoop", "vllm"):
        engine = await heard(url, kind=kind)
        await ask(engine, asked)
        bodies[kind] = faulty.seen[-1][1]
        await engine.aclose()
    for kind in ("openai", "dialoop"):
        assert (bodies[kind]["reasoning_effort"], bodies[kind]["verbosity"]) == ("none", "low")
        assert bodies[kind]["prediction"] == {"type": "content", "content": "Hi"}
        assert "chat_template_kwargs" not in bodies[kind]
    kwargs = bodies["vllm"]["chat_template_kwargs"]
    assert (bodies["vllm"]["reasoning_effort"], kwargs["enable_thinking"], kwargs["verbosity"]) == (
        "none",
        False,
        "low",
    )
    assert "prediction" not in bodies["vllm"]


async def test_a_prompt_that_goes_on_is_for_those_that_render_it(faulty: Faulty, url: str) -> None:
    asked = replace(ASKED, prompting=Prompting(variables={"a": 1}, continued=True))
    engine = await heard(url, kind="llama.cpp")
    await ask(engine, asked)
    body = faulty.seen[-1][1]
    assert body["chat_template_kwargs"] == {"a": 1}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    await engine.aclose()
    engine = await heard(url, kind="openai")
    with pytest.raises(UnsupportedError):
        await ask(engine, asked)
    await engine.aclose()


async def test_calls_and_thoughts_come_back(faulty: Faulty, engine: RemoteEngine) -> None:
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "find", "arguments": ""}}
    pieces = [
        {"reasoning_content": "hm"},
        {"tool_calls": [first]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"id":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]},
    ]
    raw = [json.dumps({"choices": [{"index": 0, "delta": piece}]}) for piece in pieces]
    faulty.acts = [streams(*(f"data: {each}\n\n".encode() for each in raw), chunk(end="tool_calls"), DONE)]
    (answer,) = await ask(engine, DIALOGUE)
    assert answer.calls == (ToolCall("c1", "find", '{"id": 1}'),)
    assert (answer.reasoning, answer.finish_reason) == ("hm", "tool_calls")
