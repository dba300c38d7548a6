"""Stored completions through the official client."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from dialoop.backends.echo import EchoEngine
from dialoop.store.pages import Window
from dialoop.store.registry import Store
from tests.serve.running import serving
from tests.serve.test_batch_resume import server
from tests.serve.test_files import add_project


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def url(home: Path) -> Iterator[str]:
    with serving(EchoEngine({"long": "word " * 400}), store=Store.open(home)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


QUESTION: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}


def ask(client: OpenAI, text: str = "你好", **fields: Any) -> Any:
    asked = {"model": "echo", "messages": [{"role": "user", "content": text}], "store": True, **fields}
    return client.chat.completions.create(**asked)


def test_an_answer_is_stored_with_what_it_was_asked_with(client: OpenAI) -> None:
    said = ask(client, metadata={"channel": "web"}, temperature=0.5, seed=3, user="u1")
    kept = client.chat.completions.retrieve(said.id)
    assert kept.choices == said.choices
    assert (kept.usage, kept.model, kept.created) == (said.usage, "echo", said.created)
    extra = kept.model_extra or {}
    assert kept.metadata == {"channel": "web"}
    assert (extra["temperature"], extra["seed"], extra["top_p"]) == (0.5, 3, 1.0)
    assert (extra["input_user"], extra["tools"], extra["response_format"]) == ("u1", None, None)


def test_a_stream_is_stored_as_the_whole_answer_would_be(client: OpenAI) -> None:
    chunks = list(ask(client, "Hello, 退货 now", stream=True, n=2, stream_options={"include_usage": True}))
    kept = client.chat.completions.retrieve(chunks[0].id)
    assert [choice.message.content for choice in kept.choices] == ["Hello, 退货 now"] * 2
    assert kept.usage == chunks[-1].usage
    assert "stream" not in (kept.model_extra or {})


def test_what_was_not_to_be_stored_is_not(client: OpenAI) -> None:
    ask(client, store=False, metadata={"a": "b"})
    ask(client, store=None)
    with pytest.raises(openai.BadRequestError):
        ask(client, n=0)
    assert list(client.chat.completions.list()) == []


def test_they_are_listed_by_model_metadata_and_page(client: OpenAI) -> None:
    made = [ask(client, str(i), metadata={"k": str(i % 2), 'odd "] key': "x y&=z"}).id for i in range(5)]
    assert [each.id for each in client.chat.completions.list()] == made
    assert [each.id for each in client.chat.completions.list(order="desc", limit=2)] == made[::-1]
    assert [each.id for each in client.chat.completions.list(metadata={"k": "1"})] == [made[1], made[3]]
    both = {"k": "0", 'odd "] key': "x y&=z"}
    assert [each.id for each in client.chat.completions.list(metadata=both, after=made[0])] == made[2::2]
    assert list(client.chat.completions.list(metadata={"k": "2"})) == []
    assert list(client.chat.completions.list(model="other")) == []
    assert len(list(client.chat.completions.list(model="echo"))) == 5
    page = client.chat.completions.list(limit=2)
    told = page.model_dump()
    assert (told["object"], told["first_id"], told["last_id"]) == ("list", made[0], made[1])
    assert page.has_more


def test_metadata_is_replaced(client: OpenAI) -> None:
    said = ask(client, metadata={"a": "1", "b": "2"})
    changed = client.chat.completions.update(said.id, metadata={"a": "3"})
    assert changed.metadata == {"a": "3"}
    assert [each.id for each in client.chat.completions.list(metadata={"a": "3"})] == [said.id]
    assert list(client.chat.completions.list(metadata={"b": "2"})) == []
    assert client.chat.completions.update(said.id, metadata=None).metadata == {}


def test_one_that_was_deleted_is_gone(client: OpenAI) -> None:
    said = ask(client, metadata={"a": "1"})
    gone = client.chat.completions.delete(said.id)
    assert (gone.id, gone.object, gone.deleted) == (said.id, "chat.completion.deleted", True)
    assert list(client.chat.completions.list(metadata={"a": "1"})) == []
    chat = client.chat.completions
    calls = [chat.retrieve, chat.delete, chat.messages.list, lambda one: chat.update(one, metadata={})]
    for call in calls:
        with pytest.raises(openai.NotFoundError, match=said.id):
            call(said.id)


def test_the_messages_of_a_request_are_listed(client: OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "system", "content": "Be brief.", "name": "boss"}, {"role": "user", "content": parts},
        {"role": "assistant", "content": "yes"}, {"role": "user", "content": "退货"},
    ]  # fmt: skip
    said = ask(client, messages=messages)
    listed = list(client.chat.completions.messages.list(said.id, limit=3))
    assert [each.id for each in listed] == [f"{said.id}-{i}" for i in range(4)]
    assert [each.role for each in listed] == ["system", "user", "assistant", "user"]
    assert [each.content for each in listed] == ["Be brief.", "one\ntwo", "yes", "退货"]
    assert [part.text for part in listed[1].content_parts or []] == ["one", "two"]  # type: ignore[union-attr]
    assert listed[0].content_parts is None
    assert (listed[0].model_extra or {})["name"] == "boss"
    newest = client.chat.completions.messages.list(said.id, order="desc", after=f"{said.id}-2", limit=1)
    assert ([each.id for each in newest.data], newest.has_more) == ([f"{said.id}-1"], True)


def test_the_next_training_file_is_built_with_the_client_alone(client: OpenAI) -> None:
    for text in ("我想退货", "Where is my order?"):
        ask(client, text, metadata={"good": "yes"})
    rows = []
    for kept in client.chat.completions.list(metadata={"good": "yes"}):
        history = [each.model_dump() for each in client.chat.completions.messages.list(kept.id)]
        rows.append({"messages": [*history, kept.choices[0].message.model_dump()]})
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    made = client.files.create(file=("next.jsonl", data), purpose="fine-tune")
    assert made.status == "processed"
    assert client.files.content(made.id).content == data


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=101", "limit"), ("order=x", "order"), ("metadata=x", "metadata"), ("modl=echo", "modl")],
)
def test_a_wrong_query_is_named(url: str, query: str, param: str) -> None:
    answer = httpx.get(f"{url}/v1/chat/completions?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "metadata", [{"k": 1}, {"k" * 65: "v"}, {"k": "v" * 513}, {str(i): "v" for i in range(17)}, ["k"]]
)
def test_metadata_out_of_bounds_is_refused(client: OpenAI, metadata: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, metadata=metadata)
    assert caught.value.param == "metadata"
    assert list(client.chat.completions.list()) == []


def test_other_projects_see_nothing_of_it(client: OpenAI, home: Path) -> None:
    said = ask(client)
    client.chat.completions.retrieve(said.id)
    with Store.open(home) as store:
        other = store.of(add_project(store)).stored
        assert other.list(Window()).items == ()
        assert len(store.stored.list(Window()).items) == 1


def test_without_a_store_nothing_can_be_stored() -> None:
    with serving(EchoEngine()) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client)
        assert (caught.value.param, caught.value.code) == ("store", "unsupported")


def test_what_was_answered_before_the_end_is_on_the_disk_after_it(home: Path) -> None:
    with (
        serving(EchoEngine(), store=Store.open(home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        made = [ask(client, str(i)).id for i in range(20)]
    with Store.open(home) as store:
        assert [kept.id for kept in store.stored.all()] == made


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_on_the_disk_before_it_ends(
    home: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Where the disk does not take it, the client is told, and it is stored once that is over."""
    monkeypatch.setattr("dialoop.store.writer.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("dialoop.store.database.BUSY_SECONDS", 0)
    monkeypatch.setattr("dialoop.serve.keeper.KEEP_SECONDS", 0.1)
    with (
        serving(EchoEngine(), store=Store.open(home)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
        closing(sqlite3.connect(home / "store.sqlite3", isolation_level=None)) as locking,
    ):
        locking.execute("begin immediate")
        with pytest.raises(openai.APIError) as late:
            list(ask(client, stream=True)) if stream else ask(client)
        assert late.value.code == "not_stored_yet"
        assert client.chat.completions.create(**{**QUESTION, "store": False}).choices
        locking.execute("rollback")
        (kept,) = client.chat.completions.list()
        assert kept.id in late.value.message


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    """The process is killed as soon as the end of the answer is read."""
    for stream in (False, True):
        with server(tmp_path / "home", tmp_path / "asked", 100) as (client, process):
            answer = ask(client, stream=stream)
            made = [chunk.id for chunk in answer][-1] if stream else answer.id
            process.kill()
            process.wait()
        with Store.open(tmp_path / "home") as store:
            assert [kept.id for kept in store.stored.all()][-1] == made
