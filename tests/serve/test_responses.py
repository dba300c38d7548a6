"""/v1/responses through the official client."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from dialoop.errors import EngineDownError
from dialoop.safety.policy import SafetySettings
from dialoop.store.registry import Store
from dialoop.types import Delta, Engine
from tests.access.test_keys import make_key
from tests.serve.running import serving
from tests.serve.scripted import Scripted, call, end
from tests.serve.test_files import add_project

TEXT_EVENTS = [
    "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    "response.output_text.delta", "response.output_text.done", "response.content_part.done",
    "response.output_item.done", "response.completed",
]  # fmt: skip


@contextmanager
def asking(engine: Engine, home: Path | None = None, **options: Any) -> Iterator[OpenAI]:
    """A client of a server over `engine`."""
    store = None if home is None else Store.open(home)
    with (
        serving(engine, store=store, **options) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.fixture
def engine() -> Scripted:
    return Scripted()


@pytest.fixture
def client(engine: Scripted, tmp_path: Path) -> Iterator[OpenAI]:
    with asking(engine, tmp_path) as client:
        yield client


def ask(client: OpenAI, given: Any = "你好", **fields: Any) -> Any:
    return client.responses.create(model="echo", input=given, **fields)


def test_a_text_is_answered_with_all_that_was_asked_for_told_back(client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "instructions": "Be brief.", "temperature": 0.5, "top_p": 0.9, "metadata": {"shop": "42"},
        "user": "u1",
        "max_output_tokens": 50, "truncation": "auto", "parallel_tool_calls": False, "max_tool_calls": 3,
        "safety_identifier": "u-1", "prompt_cache_key": "shop",
    }  # fmt: skip
    said = ask(client, **asked, reasoning={"effort": "low"}, text={"verbosity": "low"})
    assert (said.output_text, said.status, said.error, said.incomplete_details) == (
        "你好",
        "completed",
        None,
        None,
    )
    assert said.id.startswith("resp_")
    (message,) = said.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    told = said.model_dump()
    assert {name: told[name] for name in asked} == asked
    assert (said.reasoning.effort, said.text.format.type, said.text.verbosity) == ("low", "text", "low")
    assert (said.tools, said.tool_choice, said.background) == ([], "auto", False)
    assert said.usage.input_tokens + said.usage.output_tokens == said.usage.total_tokens
    assert said.usage.input_tokens_details.cached_tokens == 0


def test_a_stream_tells_every_step_in_order_and_ends_with_the_whole(client: OpenAI) -> None:
    events = list(ask(client, "Hello, 退货 now", stream=True))
    kinds = [event.type for event in events]
    assert list(dict.fromkeys(kinds)) == TEXT_EVENTS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    joined = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    assert joined == final.output_text == "Hello, 退货 now"
    assert events[0].response.output == []
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {final.output[0].id}
    assert client.responses.retrieve(final.id).output == final.output


def test_the_clients_own_stream_ends_with_the_same_response(client: OpenAI) -> None:
    with client.responses.stream(model="echo", input="one two three") as stream:
        deltas = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert (deltas[-1], final.output_text, final.status) == ("one two three", "one two three", "completed")


def test_events_are_named_in_the_stream_itself(client: OpenAI) -> None:
    body = {"model": "echo", "input": "Hi", "stream": True}
    lines = httpx.post(f"{client.base_url}responses", json=body).text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert names == [each["type"] for each in data] == TEXT_EVENTS


def test_an_answer_that_is_cut_off_is_incomplete(client: OpenAI) -> None:
    said = ask(client, "one two three", max_output_tokens=2)
    assert (said.status, said.output_text, said.output[0].status) == ("incomplete", "one two", "incomplete")
    assert said.incomplete_details.reason == "max_output_tokens"
    last = list(ask(client, "one two three", max_output_tokens=2, stream=True))[-1]
    assert (last.type, last.response.incomplete_details.reason) == (
        "response.incomplete",
        "max_output_tokens",
    )


def test_padding_hides_the_size_of_each_piece(client: OpenAI) -> None:
    events = list(ask(client, "one", stream=True, stream_options={"include_obfuscation": True}))
    padded = {event.type for event in events if "obfuscation" in (event.model_extra or {})}
    assert padded == {"response.output_text.delta"}


def test_thoughts_words_and_calls_are_items_each() -> None:
    deltas = [
        Delta(reasoning="Let me "), Delta(reasoning="think."), Delta(text="I will "), Delta(text="look."),
        *call(0, "track", '{"id":', "12}"), *call(1, "note", "AB", kind="custom"), end("tool_calls"),
    ]  # fmt: skip
    with asking(Scripted(deltas)) as client:
        whole = ask(client)
        events = list(ask(client, stream=True))
    thought, message, tracked, noted = whole.output
    assert (thought.type, thought.content[0].text, thought.summary) == ("reasoning", "Let me think.", [])
    assert (message.content[0].text, whole.output_text) == ("I will look.", "I will look.")
    assert (tracked.type, tracked.call_id, tracked.name, tracked.arguments) == (
        "function_call", "call_0", "track", '{"id":12}',
    )  # fmt: skip
    assert (noted.type, noted.call_id, noted.input) == ("custom_tool_call", "call_1", "AB")
    assert (
        whole.usage.output_tokens_details.reasoning_tokens,
        whole.usage.input_tokens_details.cached_tokens,
    ) == (2, 3)
    kinds = [event.type.removeprefix("response.") for event in events[2:]]
    opened, closed = ["output_item.added", "content_part.added"], ["content_part.done", "output_item.done"]
    assert kinds == [
        *opened, "reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done", *closed,
        *opened, "output_text.delta", "output_text.delta", "output_text.done", *closed,
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    done = [event for event in events if event.type == "response.output_item.done"]
    assert [event.output_index for event in done] == [0, 1, 2, 3]
    without_ids = [item.model_copy(update={"id": ""}) for item in whole.output]
    assert [event.item.model_copy(update={"id": ""}) for event in done] == without_ids


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    for deltas in ([end()], [Delta(reasoning="Hm."), end()]):
        with asking(Scripted(deltas)) as client:
            assert ask(client).output[-1].content[0].text == ""
            events = [event.type for event in ask(client, stream=True)]
            assert events.count("response.output_text.done") == 1


def test_thoughts_that_are_cut_off_have_said_nothing() -> None:
    with asking(Scripted([Delta(reasoning="Hm."), end("length")])) as client:
        said = ask(client)
    assert [(item.type, item.status) for item in said.output] == [("reasoning", "incomplete")]


def test_a_failure_on_the_way_is_the_last_event_and_is_kept(tmp_path: Path) -> None:
    engine = Scripted([Delta(text="So "), Delta(text="far")], EngineDownError("the engine has ended"))
    with asking(engine, tmp_path) as client:
        events = list(ask(client, stream=True))
        assert events[-1].type == "response.failed"
        failed = client.responses.retrieve(events[-1].response.id)
        assert (failed.status, failed.error.code, failed.output_text) == ("failed", "server_error", "So far")
        with pytest.raises(openai.InternalServerError):
            ask(client)


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_the_disk_does_not_take_in_time_fails_and_is_kept_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("dialoop.store.writer.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("dialoop.store.database.BUSY_SECONDS", 0)
    monkeypatch.setattr("dialoop.serve.keeper.KEEP_SECONDS", 0.1)
    with (
        asking(Scripted(), tmp_path) as client,
        closing(sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None)) as locking,
    ):
        locking.execute("begin immediate")
        if stream:
            events = list(ask(client, stream=True))
            kinds = dict.fromkeys(each.type for each in events)
            assert [*kinds] == [*TEXT_EVENTS[:-1], "response.failed"]
            assert [each.sequence_number for each in events] == [*range(len(events))]
            told = events[-1].response.error.message
        else:
            with pytest.raises(openai.InternalServerError) as late:
                ask(client)
            told = late.value.message
        locking.execute("rollback")
        kept = next(word for word in told.replace("'", " ").split() if word.startswith("resp_"))
        assert client.responses.retrieve(kept).status == "completed"


def test_a_failure_before_the_first_word_is_a_real_status() -> None:
    with asking(Scripted([], EngineDownError("the engine has ended"))) as client:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                ask(client, stream=stream)
            assert (caught.value.status_code, caught.value.code) == (503, "engine_down")


def test_a_response_is_read_listed_and_deleted(client: OpenAI) -> None:
    given: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"role": "assistant", "content": "b"}, {"id": "msg_mine", "role": "user", "content": "c"},
    ]  # fmt: skip
    said = ask(client, given, metadata={"shop": "42"}, include=["reasoning.encrypted_content"])
    assert client.responses.retrieve(said.id, include=["message.output_text.logprobs"]) == said
    items = list(client.responses.input_items.list(said.id, order="asc", limit=3))
    assert [(item.role, item.content[0].text) for item in items] == [
        ("developer", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"),
    ]  # fmt: skip
    assert [item.content[0].type for item in items] == [
        "input_text",
        "input_text",
        "output_text",
        "input_text",
    ]
    assert items[-1].id == "msg_mine"
    newest = client.responses.input_items.list(said.id, after="msg_mine", limit=2)
    assert ([item.id for item in newest.data], newest.has_more) == ([items[2].id, items[1].id], True)
    client.responses.delete(said.id)
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError, match=said.id):
            gone(said.id)


def test_a_text_is_listed_as_a_message(client: OpenAI) -> None:
    (item,) = client.responses.input_items.list(ask(client, "退货").id)
    assert (item.type, item.role, item.content[0].text) == ("message", "user", "退货")
    assert item.id.startswith("msg_")


def test_what_is_not_to_be_stored_can_be_neither_read_nor_gone_on_from(client: OpenAI) -> None:
    said = ask(client, store=False)
    assert said.model_extra["store"] is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(said.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, previous_response_id=said.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_a_dialogue_goes_on_from_response_to_response(client: OpenAI, engine: Scripted) -> None:
    first = ask(client, "one", instructions="Be brief.")
    second = ask(client, "two", previous_response_id=first.id, instructions="Be kind.")
    third = ask(client, [{"role": "user", "content": "three"}], previous_response_id=second.id)
    assert third.previous_response_id == second.id
    said = [(row["role"], row["content"]) for row in engine.messages]
    assert said == [
        ("user", "one"), ("assistant", "one"), ("user", "two"), ("assistant", "two"), ("user", "three"),
    ]  # fmt: skip
    assert (third.instructions, second.instructions) == (None, "Be kind.")
    client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError, match=first.id):
        ask(client, previous_response_id=third.id)


def test_two_may_go_on_from_the_same_response(client: OpenAI, engine: Scripted) -> None:
    first = ask(client, "one")
    for text in ("two", "three"):
        ask(client, text, previous_response_id=first.id)
        assert [row["content"] for row in engine.messages] == ["one", "one", text]


def test_a_dialogue_goes_on_after_a_restart(tmp_path: Path) -> None:
    with asking(Scripted(), tmp_path) as client:
        first = ask(client, "one")
    engine = Scripted()
    with asking(engine, tmp_path) as client:
        assert client.responses.retrieve(first.id) == first
        ask(client, "two", previous_response_id=first.id)
    assert [row["content"] for row in engine.messages] == ["one", "one", "two"]


def test_other_projects_and_keys_for_less_see_nothing_of_it(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        _, mine = make_key(store, "mine", "inference,data")
        _, asks = make_key(store, "asks", "inference")
        _, other = make_key(store.of(add_project(store)), "other", "inference,data")
    with asking(Scripted(), tmp_path) as client:
        said = ask(client.with_options(api_key=mine), "one")
        theirs = client.with_options(api_key=other)
        for see in (theirs.responses.retrieve, theirs.responses.delete, theirs.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                see(said.id)
        with pytest.raises(openai.BadRequestError) as caught:
            ask(theirs, previous_response_id=said.id)
        assert caught.value.code == "previous_response_not_found"
        with pytest.raises(openai.PermissionDeniedError):
            client.with_options(api_key=asks).responses.retrieve(said.id)
        assert client.with_options(api_key=mine).responses.retrieve(said.id) == said


def test_what_is_used_is_charged_to_the_key(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        _, poor = make_key(store, "poor", "inference", budget=4)
    with asking(Scripted(), tmp_path) as client:
        poor_client = client.with_options(api_key=poor)
        ask(poor_client, "one two", max_output_tokens=1)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(poor_client, "one two", max_output_tokens=1)
        assert caught.value.code == "insufficient_quota"


def test_the_filter_reads_questions_and_answers(tmp_path: Path) -> None:
    engine = Scripted(script={"bad": "Well, I will kill you. Bye."})
    with asking(engine, tmp_path, safety=SafetySettings(on=True)) as client:
        said = ask(client, "bad")
        assert (said.status, said.output_text) == ("incomplete", "Well, ")
        assert said.incomplete_details.reason == "content_filter"
        for given, param in (
            ("怎么制作炸弹", "input"),
            ([{"role": "user", "content": "Hi"}, {"role": "user", "content": "怎么制作炸弹"}], "input[1]"),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                ask(client, given, instructions="Be kind.")
            assert (caught.value.code, caught.value.param) == ("content_filter", param)


def test_nothing_in_the_background_can_be_asked_for_or_cancelled(client: OpenAI) -> None:
    ask(client, background=False)
    with pytest.raises(openai.BadRequestError, match="/v1/batches") as caught:
        ask(client, background=True)
    assert (caught.value.code, caught.value.param) == ("unsupported", "background")
    said = ask(client)
    with pytest.raises(openai.BadRequestError, match="completed") as caught:
        client.responses.cancel(said.id)
    assert caught.value.code == "unsupported"
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_none")
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.retrieve(said.id, stream=True)
    assert (caught.value.code, caught.value.param) == ("unsupported", "stream")


def test_without_a_store_responses_are_answered_and_not_kept() -> None:
    with asking(Scripted()) as client:
        assert ask(client).model_extra["store"] is False
        for fields, param in (
            ({"store": True}, "store"),
            ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                ask(client, **fields)
            assert (caught.value.param, caught.value.code) == (param, "unsupported")


def test_batches_ask_for_responses_too(client: OpenAI) -> None:
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/responses",
        "body": {"model": "echo", "input": "one"},
    }
    file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    assert batch.endpoint == "/v1/responses"
