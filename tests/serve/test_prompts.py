"""Prompts that requests name, through the official client."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from dialoop.errors import RequestError
from dialoop.serve.metrics import Metrics
from dialoop.serve.prompts import PromptShelf
from dialoop.store.registry import Store
from dialoop.types import ChatRequest, Embedded, Tokenized
from tests.serve.scripted import Scripted
from tests.serve.test_responses import asking
from tests.tiny import tiny_model

DESK = """
name = "desk"
model = "echo"

[variables.shop]
default = "ours"

[parameters]
temperature = 0.25
max_tokens = 9
stop = ["!"]
seed = 3

[wording.en]
system = "You work for {{ shop }}."

[wording.zh]
system = "你为{{ shop }}工作。"
"""


@pytest.fixture
def engine() -> Scripted:
    return Scripted()


@pytest.fixture
def client(engine: Scripted, tmp_path: Path) -> Iterator[OpenAI]:
    with Store.open(tmp_path) as store:
        store.prompts.add(DESK)
        store.prompts.add(DESK.replace("You work", "You still work"))
    with asking(engine, tmp_path) as client:
        yield client


def chat(client: OpenAI, prompt: Any, *said: str, **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": each} for each in said]
    extra = {"prompt": prompt, **fields.pop("extra", {})}
    return client.chat.completions.create(model="echo", messages=messages, extra_body=extra, **fields)


def test_a_chat_and_a_response_are_asked_the_same(client: OpenAI, engine: Scripted) -> None:
    prompt: Any = {"id": "desk", "version": "1", "variables": {"shop": "the book shop"}}
    wanted = [
        {"role": "system", "content": "You work for the book shop."},
        {"role": "user", "content": "Hi"},
    ]
    chat(client, prompt, "Hi")
    assert engine.messages == wanted
    told = client.responses.create(prompt=prompt, input="Hi")
    assert engine.messages == wanted
    assert (told.model, told.prompt.id, told.prompt.version) == ("echo", "desk", "1")  # type: ignore[union-attr]
    first, second = (request.sampling for request in engine.heard)
    assert (first.temperature, first.max_tokens, first.stop, first.seed) == (0.25, 9, ("!",), 3)
    assert second == first
    assert (told.temperature, told.max_output_tokens) == (0.25, 9)


def test_what_the_request_says_comes_before_what_the_prompt_says(client: OpenAI, engine: Scripted) -> None:
    chat(client, {"id": "desk"}, "Hi", temperature=1.5, max_tokens=4)
    sampling = engine.heard[-1].sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.seed) == (1.5, 4, 3)
    client.responses.create(prompt={"id": "desk"}, input="Hi", instructions="Be brief.", temperature=0)
    assert engine.messages[0]["content"] == "You still work for ours.\n\nBe brief."
    assert engine.heard[-1].sampling.temperature == 0


def test_the_promoted_version_answers_and_another_may_be_named(
    client: OpenAI, engine: Scripted, tmp_path: Path
) -> None:
    def system() -> str:
        return str(engine.messages[0]["content"])

    chat(client, {"id": "desk"}, "Hi")
    assert system() == "You still work for ours."
    with Store.open(tmp_path) as store:
        old = store.prompts.promote("desk@1")
    chat(client, {"id": "desk"}, "Hi")
    assert system() == "You work for ours."
    chat(client, {"id": "desk@2"}, "Hi")
    assert system() == "You still work for ours."
    chat(client, {"id": old.id}, "你好")
    assert system() == "你为ours工作。"
    chat(client, {"id": "desk", "language": "en"}, "你好")
    assert system() == "You work for ours."


def test_a_dialogue_is_put_into_the_guides_words(client: OpenAI, engine: Scripted) -> None:
    first = client.responses.create(model="echo", prompt={"id": "dialogue"}, input="Hi")
    client.responses.create(
        model="echo", prompt={"id": "dialogue"}, input="And?", previous_response_id=first.id
    )
    (asked,) = engine.messages
    assert asked["content"].startswith("Given the dialogue history:\nUser: Hi\nAssistant: ")
    assert asked["content"].endswith("\nUser: And?\nanswer:")


def test_a_prompt_may_say_it_all(client: OpenAI, engine: Scripted) -> None:
    prompt: Any = {"id": "translate", "variables": {"text": {"type": "input_text", "text": "Good day"}}}
    said = client.responses.create(model="echo", prompt=prompt)
    assert engine.messages[-1] == {"role": "user", "content": "Good day"}
    assert said.output_text == "Good day"
    chat(client, prompt)
    assert engine.messages[-1] == {"role": "user", "content": "Good day"}


def test_a_stored_completion_has_what_the_model_was_asked(client: OpenAI) -> None:
    kept = chat(client, {"id": "desk"}, "Hi", store=True)
    messages = client.chat.completions.messages.list(kept.id).data
    assert [(each.role, each.content) for each in messages] == [
        ("system", "You still work for ours."),
        ("user", "Hi"),
    ]
    found = client.chat.completions.retrieve(kept.id).model_dump()
    assert found["prompt"] == {"id": "desk", "version": "2", "variables": {}}


WRONG: list[tuple[Any, str, str]] = [
    ({"id": "dsk"}, "prompt", "did you mean 'desk'"),
    ({"id": "desk", "version": "7"}, "prompt", "no prompt 'desk@7'"),
    ({"id": "desk", "version": "new"}, "prompt.version", "new"),
    ({"id": "desk", "vars": {}}, "prompt.vars", "unknown field"),
    ({}, "prompt.id", "missing"),
    ({"id": "desk", "variables": {"shp": "x"}}, "prompt.variables.shp", "did you mean 'shop'"),
    ({"id": "desk", "variables": {"shop": 3}}, "prompt.variables.shop", "expected a text"),
    ({"id": "question"}, "prompt.variables.passage", "is missing"),
]


@pytest.mark.parametrize(("prompt", "param", "words"), WRONG, ids=[words for _, _, words in WRONG])
def test_what_is_wrong_with_a_prompt_is_named(client: OpenAI, prompt: Any, param: str, words: str) -> None:
    for ask in (
        lambda: chat(client, prompt, "Hi"),
        lambda: client.responses.create(model="echo", prompt=prompt, input="Hi"),
    ):
        with pytest.raises(BadRequestError) as caught:
            ask()
        assert caught.value.param == param
        assert words in str(caught.value)
    with pytest.raises(BadRequestError, match="expected an object"):
        chat(client, "desk", "Hi")


def test_places_in_the_request_stay_what_they_are(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match=r"messages\[1\]"):
        client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": "Hi"}, {"role": "nobody", "content": ""}],  # type: ignore[list-item]
            extra_body={"prompt": {"id": "desk"}},
        )


def test_without_a_store_the_shipped_prompts_are_there(engine: Scripted) -> None:
    with asking(engine) as client:
        chat(client, {"id": "dialogue", "version": "0"}, "Hi")
        assert json.dumps(engine.messages).count("Given the dialogue history") == 1
        with pytest.raises(BadRequestError, match="no prompt 'desk'"):
            chat(client, {"id": "desk"}, "Hi")


POOL = """
name = "sort"

[few_shot]
select = "{select}"
count = 1
max_tokens = {most}

[wording.en]
system = "Sort."

[[examples]]
messages = [{{ role = "user", content = "my card is gone" }}, {{ role = "assistant", content = "card" }}]

[[examples]]
messages = [{{ role = "user", content = "a late parcel" }}, {{ role = "assistant", content = "parcel" }}]
"""


class Counting(Scripted):
    """Tells tokens, which are words, and vectors, which count letters."""

    async def tokenize(self, model: str, text: str | ChatRequest, *, framed: bool = True) -> Tokenized:
        assert isinstance(text, str)
        return Tokenized(tuple(range(len(text.split()))), tuple(text.split()), 2048)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        return ""

    async def embed(
        self, model: str, texts: Sequence[str | Sequence[int]], *, normalize: bool = True,
        dimensions: int | None = None,
    ) -> Embedded:  # fmt: skip
        self.embedded = [*getattr(self, "embedded", []), *texts]
        counts = [[str(text).count(letter) + 0.01 for letter in "acdelpr"] for text in texts]
        return Embedded(tuple(tuple(x / math.hypot(*row) for x in row) for row in counts), 1)


@pytest.mark.parametrize("select", ["bm25", "mmr", "balanced", "embeddings"])
def test_examples_are_chosen_for_each_question(tmp_path: Path, select: str) -> None:
    engine = Counting()
    with Store.open(tmp_path) as store:
        store.prompts.add(POOL.format(select=select, most=100))
        store.prompts.add(POOL.format(select=select, most=1).replace('"sort"', '"tight"'))
    with asking(engine, tmp_path) as client:
        for question, answer in (("gone card", "card"), ("late parcel", "parcel"), ("card gone", "card")):
            chat(client, {"id": "sort"}, question)
            assert [m["content"] for m in engine.messages if m["role"] == "assistant"] == [answer]
            client.responses.create(model="echo", prompt={"id": "sort"}, input=question)
            assert [m["content"] for m in engine.messages if m["role"] == "assistant"] == [answer]
        if select == "embeddings":
            assert engine.embedded.count("my card is gone") == 1
        chat(client, {"id": "tight"}, "a card")
        assert [m["role"] for m in engine.messages] == ["system", "user"]


def test_examples_by_vectors_need_an_engine_that_embeds(engine: Scripted, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.prompts.add(POOL.format(select="embeddings", most=100).replace("max_tokens = 100", ""))
    with asking(engine, tmp_path) as client, pytest.raises(BadRequestError, match="does not embed"):
        chat(client, {"id": "sort"}, "a card")


def test_a_soft_prompt_is_answered_by_its_own_model(engine: Scripted, tmp_path: Path) -> None:
    base = str(tiny_model())
    with Store.open(tmp_path) as store:
        soft = store.models.register("softly", "prompt", tiny_model(), base=base)
        store.prompts.add(f'name = "soft"\nsoft = "{soft.ref}"\n[wording.en]\nsystem = "Hello."')
        shelf, project = PromptShelf(store, engine, Metrics()), store.project
        for model in (None, base, "softly", "softly@1"):
            body: dict[str, Any] = {"model": model, "prompt": {"id": "soft"}, "messages": []}
            found = asyncio.run(shelf.named(project, body))
            assert found is not None
            assert found.chat(body)["model"] == "softly@1"
        with pytest.raises(RequestError, match="leave model out") as caught:
            asyncio.run(shelf.named(project, {"model": "echo", "prompt": {"id": "soft"}}))
        assert caught.value.param == "model"
