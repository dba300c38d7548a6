# ruff: noqa: E501  (schemas and templates are easier to read unbroken)
"""Calls by models that know nothing: forced, they are whole; nothing else is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.errors import RequestError
from dialoop.types import (
    Answer,
    ChatRequest,
    CompleteRequest,
    Conversation,
    Grammar,
    Message,
    ModelRef,
    Prompting,
    Sampling,
    Tool,
    ToolChoice,
    fold,
)  # fmt: skip
from tests.tiny import CHATML, make_tiny_model, tiny_model

MISTRAL = CHATML.replace("<tool_call>", "[TOOL_CALLS]")
LLAMA3 = CHATML.replace("<tool_call>", "<|python_tag|>")
PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TEMPLATES = {
    "hermes": CHATML,
    "mistral": MISTRAL,
    "llama3": LLAMA3,
    "json": CHATML.replace("<tool_call>", "CALL"),
    "none": PLAIN,
}
ORDER = {
    "type": "object",
    "properties": {
        "order": {"type": "integer", "minimum": 0, "maximum": 99},
        "why": {"enum": ["late", "破损"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["order", "why"],
}
TOOLS = (Tool("track", "Find a parcel", ORDER), Tool("stop"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folders = {
        name: make_tiny_model(tmp_path_factory.mktemp(name), template=template, context=1024)
        for name, template in TEMPLATES.items()
    }
    engine = LocalEngine({name: open_model(ModelRef(name, folder)) for name, folder in folders.items()})
    yield engine
    asyncio.run(engine.aclose())


def asking(model: str, **fields: Any) -> ChatRequest:
    sampling = Sampling(**{"temperature": 1.0, "seed": 1, "max_tokens": 200, **fields.pop("sampling", {})})
    conversation = Conversation((Message("user", "Where is it?"),), fields.pop("tools", TOOLS))
    return ChatRequest(model, conversation, sampling, **fields)


async def answers(engine: LocalEngine, request: ChatRequest) -> tuple[Answer, ...]:
    return await fold(engine.chat(request))


@pytest.mark.parametrize("model", TEMPLATES)
@pytest.mark.parametrize("parallel", [True, False])
async def test_a_required_call_is_whole_in_every_style(
    engine: LocalEngine, model: str, parallel: bool
) -> None:
    choice = ToolChoice("required", parallel=parallel)
    for answer in await answers(engine, asking(model, choice=choice, sampling={"n": 4})):
        assert answer.text == ""
        assert answer.calls
        assert len(answer.calls) == 1 or parallel
        assert answer.finish_reason in ("tool_calls", "length")
        for call in answer.calls:
            given = json.loads(call.arguments)
            assert call.name in ("track", "stop")
            assert given == {} if call.name == "stop" else given.keys() <= ORDER["properties"].keys()  # type: ignore[attr-defined]


async def test_a_named_call_ends_with_stop_and_comes_in_pieces(engine: LocalEngine) -> None:
    request = asking("hermes", choice=ToolChoice("required", ("track",), parallel=False))
    deltas = [delta async for delta in engine.chat(request)]
    first, *rest = [piece for delta in deltas for piece in delta.calls]
    assert (first.index, first.name, first.arguments) == (0, "track", "")
    assert first.id
    assert first.id.startswith("call_")
    assert len(rest) > 1
    assert all((piece.index, piece.id, piece.name) == (0, None, None) for piece in rest)
    assert json.loads("".join(piece.arguments for piece in rest))["why"] in ("late", "破损")
    assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize("limit", [100, 120])
async def test_however_few_tokens_there_are_an_open_schema_ends(engine: LocalEngine, limit: int) -> None:
    endless = {
        "type": "object",
        "properties": {"count": {"type": "integer"}, "text": {"type": "string"}, "list": {"type": "array"}},
        "required": ["count", "text", "list"],
    }
    asked = {"max_tokens": limit, "n": 3, "logit_bias": ((68, 3.0),)}
    forced = asking(
        "hermes", tools=(Tool("write", "", endless),), choice=ToolChoice("required"), sampling=asked
    )
    grammar = Grammar("json_schema", json.dumps(endless))
    plain = asking("hermes", tools=(), sampling={**asked, "grammar": grammar})
    for request in (forced, plain):
        for answer in await answers(engine, request):
            text = answer.calls[0].arguments if answer.calls else answer.text
            assert json.loads(text).keys() >= {"count", "text", "list"}


async def test_beside_a_format_an_answer_is_a_call_or_keeps_to_it(engine: LocalEngine) -> None:
    wanted = Grammar(
        "json_schema",
        '{"type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"], "additionalProperties": false}',
    )
    kinds = set()
    for answer in await answers(engine, asking("hermes", sampling={"grammar": wanted, "n": 12})):
        kinds.add(bool(answer.calls))
        assert answer.calls or json.loads(answer.text).keys() == {"done"}
    assert kinds == {True, False}


async def test_where_the_model_may_choose_it_speaks_and_strict_calls_keep_to_their_schema(
    engine: LocalEngine,
) -> None:
    strict = tuple(replace(tool, strict=True) for tool in TOOLS)
    opener = engine._roster.decoder("hermes").tokenizer.encode("<tool_call>")  # type: ignore[union-attr]
    free, led = [
        (
            await answers(
                engine, asking("hermes", tools=strict, sampling={"max_tokens": 120, "logit_bias": bias})
            )
        )[0]
        for bias in ((), tuple((token, 12.0) for token in set(opener)))
    ]
    assert free.text
    assert not free.calls
    assert led.finish_reason in ("tool_calls", "length", "stop")
    assert "<tool_call>" not in led.text


async def test_tools_that_may_not_be_called_are_not_shown(engine: LocalEngine) -> None:
    none = asking("hermes", choice=ToolChoice("none"))
    without = asking("hermes", tools=())
    assert await answers(engine, none) == await answers(engine, without)


async def test_a_custom_tool_gets_a_text_of_its_form(engine: LocalEngine) -> None:
    tool = Tool("note", kind="custom", format=Grammar("regex", "[A-C]{3}号", "tools"))
    request = asking("hermes", tools=(tool,), choice=ToolChoice("required", parallel=False))
    (call,) = (await answers(engine, request))[0].calls
    assert call.kind == "custom"
    assert call.arguments[3:] == "号"
    lark = replace(tool, format=Grammar("lark", 'start: "a"', "tools"))
    with pytest.raises(RequestError, match="lark grammar"):
        await answers(engine, asking("hermes", tools=(lark,)))


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        (
            {"type": "object", "properties": {"a": {"type": "string", "maxLenght": 3}}},
            "did you mean 'maxLength'",
        ),
        ({"type": "object", "x-guidance": {"lenient": True}}, "x-guidance"),
        ({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, "uniqueItems"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "not"),
    ],
)
async def test_a_schema_that_would_not_be_kept_to_is_refused(
    engine: LocalEngine, schema: Any, match: str
) -> None:
    request = asking("hermes", tools=(Tool("f", "", schema),), choice=ToolChoice("required"))
    with pytest.raises(RequestError, match=match) as caught:
        await answers(engine, request)
    assert caught.value.param
    assert caught.value.param.startswith("tools")


async def test_thoughts_are_told_apart(tmp_path: Path) -> None:
    thinking = CHATML.replace(
        "<|im_start|>assistant\\n' }}{% endif", "<|im_start|>assistant\\n<think>\\n' }}{% endif"
    )
    folder = make_tiny_model(tmp_path, template=thinking + "{# </think> #}")
    engine = LocalEngine({"t": open_model(ModelRef("t", folder))})
    (answer,) = await answers(engine, asking("t", tools=(), sampling={"max_tokens": 9}))
    await engine.aclose()
    assert answer.text == ""
    assert answer.reasoning
    assert 0 < answer.usage.reasoning_tokens <= 12


async def test_a_text_goes_on_and_may_only_be_read(engine: LocalEngine) -> None:
    told = Sampling(temperature=0, max_tokens=0, prompt_logprobs=1, token_ids=True)
    (read,) = await fold(engine.complete(CompleteRequest("hermes", "Your order has", told)))
    assert (read.text, read.finish_reason, read.usage.completion_tokens) == ("", "length", 0)
    assert len(read.prompt_logprobs) == len(read.prompt_ids) == read.usage.prompt_tokens
    ids = read.prompt_ids
    for prompt in ("Your order has", ids):
        (answer,) = await fold(
            engine.complete(
                CompleteRequest("hermes", prompt, Sampling(temperature=0, max_tokens=5, token_ids=True))
            )
        )
        assert answer.usage.completion_tokens == len(answer.token_ids) == 5
    assert (await engine.tokenize("hermes", "Your order has")).ids == ids
    assert await engine.detokenize("hermes", ids) == "Your order has"


async def test_a_prediction_changes_the_speed_and_nothing_else(engine: LocalEngine) -> None:
    asked = asking("hermes", tools=(), sampling={"temperature": 0, "max_tokens": 40})
    (plain,) = await answers(engine, asked)
    (predicted,) = await answers(engine, replace(asked, prediction=plain.text))
    assert predicted.text == plain.text
    assert predicted.usage.accepted_tokens > 10
    assert plain.usage.accepted_tokens == plain.usage.rejected_tokens == 0


async def test_words_and_tokens_are_kept_out_and_a_stop_string_may_stay(engine: LocalEngine) -> None:
    asked = {"temperature": 0, "max_tokens": 16, "token_ids": True}
    (plain,) = await answers(engine, asking("hermes", tools=(), sampling=asked))
    some = tuple(sorted(set(plain.token_ids)))[:2]
    (few,) = await answers(engine, asking("hermes", tools=(), sampling={**asked, "allowed_token_ids": some}))
    assert set(few.token_ids) <= set(some)
    tokenizer = open_model(ModelRef("t", tiny_model())).tokenizer
    texts = {token: tokenizer.decode([token]) for token in plain.token_ids}
    token, word = next((token, text) for token, text in texts.items() if tokenizer.encode(text) == [token])
    (bare,) = await answers(engine, asking("hermes", tools=(), sampling={**asked, "bad_words": (word,)}))
    assert token not in bare.token_ids
    stop = plain.text[3:5]
    (kept,) = await answers(
        engine, asking("hermes", tools=(), sampling={**asked, "stop": (stop,), "include_stop": True})
    )
    assert kept.text == plain.text[: plain.text.index(stop) + len(stop)]
    opened = asking("hermes", tools=(), sampling=asked, prompting=Prompting(answering=False))
    assert (await answers(engine, opened))[0].usage.prompt_tokens < plain.usage.prompt_tokens
