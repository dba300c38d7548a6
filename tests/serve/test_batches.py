"""Batches through the official client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from dialoop.backends.echo import EchoEngine, last_user_turn
from dialoop.errors import OverloadedError
from dialoop.serve.gate import Gate
from dialoop.store.pages import Window
from dialoop.store.registry import Store
from dialoop.types import ChatRequest, Delta, Embedded
from tests.serve.running import serving
from tests.serve.test_files import add_project

CHAT = "/v1/chat/completions"
ENDS = ("completed", "failed", "expired", "cancelled")
LOOKS = 20_000


class Held(EchoEngine):
    """Answers `hold` only when it is let; counts what is under way, and refuses `busy` once."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.asked = 0, list[str]()
        self._let = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def let(self) -> None:
        """Answer whatever is held, and all that comes."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._let.set)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self._loop = asyncio.get_running_loop()
        text = last_user_turn(request.conversation)
        self.asked.append(text)
        if text == "busy" and self.asked.count("busy") == 1:
            raise OverloadedError("later", retry_after=0)
        if text == "broken":
            raise RuntimeError("secret")
        async for delta in super().chat(request):
            self.most = max(self.most, self.open)
            if text.startswith("hold"):
                await self._let.wait()
            yield delta

    async def embed(
        self, model: str, texts: Sequence[str | Sequence[int]], *, normalize: bool = True,
        dimensions: int | None = None,
    ) -> Embedded:  # fmt: skip
        return Embedded(((1.0, 0.0),) * len(texts), len(texts))


@pytest.fixture
def engine() -> Held:
    return Held()


@pytest.fixture
def client(engine: Held, tmp_path: Path) -> Iterator[OpenAI]:
    with (
        serving(engine, store=Store.open(tmp_path), batch_rows=4) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client
        engine.let()


def row(text: str, name: str | None = None, **fields: Any) -> dict[str, Any]:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
    return {"custom_id": name or text, "method": "POST", "url": CHAT, "body": body}


def jsonl(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def upload(client: OpenAI, *rows: Any) -> str:
    return client.files.create(file=("in.jsonl", jsonl(rows)), purpose="batch").id


def begin(client: OpenAI, *rows: Any, endpoint: Any = CHAT, **fields: Any) -> openai.types.Batch:
    given: Any = {"completion_window": "24h", **fields}
    return client.batches.create(input_file_id=upload(client, *rows), endpoint=endpoint, **given)


def until(client: OpenAI, batch: openai.types.Batch, *statuses: str) -> openai.types.Batch:
    for _ in range(LOOKS):
        batch = client.batches.retrieve(batch.id)
        if batch.status in (statuses or ENDS):
            return batch
    raise AssertionError(f"still {batch.status}")


def read(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id
    rows = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    named = {row["custom_id"]: row for row in rows}
    assert len(named) == len(rows)
    assert all(set(row) == {"id", "custom_id", "response", "error"} for row in rows)
    return named


def test_every_line_is_answered_or_told_why_not(client: OpenAI) -> None:
    batch = begin(client, row("你好"), row("b", temperature=9), row("busy"), metadata={"k": "v"})
    assert (batch.object, batch.endpoint, batch.completion_window) == ("batch", CHAT, "24h")
    assert batch.expires_at == batch.created_at + 86_400
    done = until(client, batch)
    assert (done.status, done.metadata, done.model, done.errors) == ("completed", {"k": "v"}, "echo", None)
    assert done.request_counts
    assert done.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
    said, failed = read(client, done.output_file_id), read(client, done.error_file_id)
    assert said.keys() == {"你好", "busy"}
    answer = said["你好"]["response"]
    assert (answer["status_code"], answer["body"]["object"]) == (200, "chat.completion")
    assert answer["body"]["choices"][0]["message"]["content"] == "你好"
    assert answer["request_id"]
    assert failed["b"]["response"]["status_code"] == 400
    assert failed["b"]["response"]["body"]["error"]["param"] == "temperature"
    assert done.usage
    assert done.usage.total_tokens == sum(
        each["response"]["body"]["usage"]["total_tokens"] for each in said.values()
    )
    output = client.files.retrieve(done.output_file_id or "")
    assert (output.purpose, output.expires_at) == ("batch_output", None)
    assert done.completed_at
    assert done.in_progress_at
    assert done.finalizing_at


def test_a_server_error_is_tried_again_and_then_told(client: OpenAI, engine: Held) -> None:
    done = until(client, begin(client, row("broken")))
    assert (done.status, done.output_file_id) == ("completed", None)
    assert read(client, done.error_file_id)["broken"]["response"]["status_code"] == 500
    assert engine.asked == ["broken"] * 3


def test_embeddings_are_made_in_batches_too(client: OpenAI) -> None:
    line = {
        "custom_id": "e",
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": "echo", "input": "a"},
    }
    done = until(client, begin(client, line, endpoint="/v1/embeddings"))
    assert read(client, done.output_file_id)["e"]["response"]["body"]["data"][0]["embedding"] == [1.0, 0.0]


def test_lines_may_ask_to_be_stored(client: OpenAI) -> None:
    until(client, begin(client, row("a", store=True, metadata={"from": "batch"})))
    assert [kept.metadata for kept in client.chat.completions.list()] == [{"from": "batch"}]


@pytest.mark.parametrize(
    ("rows", "code", "line", "param"),
    [
        ([row("a"), row("b", model="gpt-4")], "model_not_found", 2, "body.model"),
        ([row("a"), {**row("b"), "url": "/v1/embeddings"}], "invalid_url", 2, "url"),
    ],
)
def test_a_batch_that_cannot_be_run_fails_with_the_lines_at_fault(
    client: OpenAI, rows: list[Any], code: str, line: int, param: str
) -> None:
    done = until(client, begin(client, *rows))
    assert (done.status, done.output_file_id, done.error_file_id) == ("failed", None, None)
    assert done.failed_at
    assert done.errors
    assert done.errors.data
    assert [(each.code, each.line, each.param) for each in done.errors.data] == [(code, line, param)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no lines"),
        ([row("a"), row("b", "a")], "line 2: custom_id = 'a' stands in line 1"),
        ([{**row("a"), "method": "GET"}], "line 1: method = 'GET'"),
        ([{**row("a"), "url": "/v1/files"}], "line 1: url = '/v1/files'"),
        ([{**row("a"), "body": []}], "line 1: body"),
        ([{**row("a"), "cust": 1}], "line 1: unknown field 'cust'; did you mean 'custom_id'"),
        ([row("a", stream=True)], "line 1: body.stream"),
        ([{"custom_id": "a"}], "line 1: method is missing"),
        ([row("a"), 5], "line 2: 5, not a JSON object"),
        ([{**row("a"), "custom_id": 5}], "line 1: custom_id = 5"),
    ],
)  # fmt: skip
def test_an_input_file_is_checked_when_it_comes(client: OpenAI, rows: list[Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, *rows)
    assert said in caught.value.message
    assert (caught.value.param, caught.value.code) == ("file", "invalid_file_format")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/files"}, "endpoint"), ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "900h"}, "completion_window"), ({"input_file_id": "file-x"}, "input_file_id"),
        ({"metadata": {"k": 1}}, "metadata"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_begin_is_refused(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    given: Any = {"input_file_id": upload(client, row("a")), "endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(**{**given, **fields})
    assert caught.value.param == param


def test_a_file_for_something_else_is_refused(client: OpenAI) -> None:
    other = client.files.create(file=("a", b"x"), purpose="user_data").id
    with pytest.raises(openai.BadRequestError, match="user_data"):
        client.batches.create(input_file_id=other, endpoint=CHAT, completion_window="24h")


def test_a_cancelled_batch_keeps_what_was_answered(client: OpenAI, engine: Held) -> None:
    batch = begin(client, row("first"), row("hold 1"), row("hold 2"))
    for _ in range(LOOKS):
        counts = client.batches.retrieve(batch.id).request_counts
        if counts and counts.completed:
            break
    asked = client.batches.cancel(batch.id)
    assert asked.status == "cancelling"
    assert asked.output_file_id is None
    done = until(client, batch)
    assert done.status == "cancelled"
    assert done.cancelled_at
    assert engine.open == 0
    assert read(client, done.output_file_id).keys() == {"first"}
    errors = {name: each["error"]["code"] for name, each in read(client, done.error_file_id).items()}
    assert errors == {"hold 1": "batch_cancelled", "hold 2": "batch_cancelled"}
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.batches.cancel(batch.id)


def test_a_batch_whose_input_is_deleted_goes_on(client: OpenAI, engine: Held) -> None:
    batch = begin(client, row("hold"), row("b"))
    client.files.delete(batch.input_file_id)
    engine.let()
    assert read(client, until(client, batch).output_file_id).keys() == {"hold", "b"}


def test_requests_of_clients_are_answered_beside_a_batch(client: OpenAI, engine: Held) -> None:
    batch = begin(client, *(row(f"hold {i}") for i in range(20)))
    while engine.open < 4:
        client.batches.retrieve(batch.id)
    ask = client.chat.completions.create
    assert ask(model="echo", messages=[{"role": "user", "content": "Hi"}]).choices[0].message.content == "Hi"
    engine.let()
    assert until(client, batch).status == "completed"
    assert engine.most <= 5


async def test_the_gate_is_narrower_while_clients_wait() -> None:
    live, entered, done = [3], asyncio.Queue[int](), asyncio.Event()
    gate = Gate(4, lambda: live[0])

    async def one(number: int) -> None:
        async with gate.passed():
            entered.put_nowait(number)
            await done.wait()

    tasks = [asyncio.create_task(one(number)) for number in range(6)]
    assert await entered.get() == 0
    live[0] = 1
    assert [await entered.get(), await entered.get()] == [1, 2]
    assert entered.empty()
    live[0] = 9
    done.set()
    await asyncio.gather(*tasks)
    assert [entered.get_nowait() for _ in range(3)] == [3, 4, 5]


def test_they_are_listed_page_by_page(client: OpenAI) -> None:
    made = [begin(client, row(str(i))) for i in range(3)]
    for batch in made:
        until(client, batch)
    assert [each.id for each in client.batches.list(limit=2)] == [each.id for each in made[::-1]]


def test_unknown_batches_and_those_of_others_are_404s(client: OpenAI, tmp_path: Path) -> None:
    batch = begin(client, row("a"))
    until(client, batch)
    with Store.open(tmp_path) as store:
        other = store.of(add_project(store)).batches
        assert other.list(Window()).items == ()
    for call in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError, match="batch_none"):
            call("batch_none")


def test_what_is_not_answered_in_time_is_told_so(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store.files.staged() as folder:
        (folder / "in").write_bytes(jsonl([row("a"), row("b")]))
        file = store.files.adopt(folder / "in", filename="in", purpose="batch")
        batch = store.batches.create(
            input_file_id=file.id, endpoint=CHAT, window="24h", seconds=0, key_id=None, metadata={},
            output_seconds=3600,
        )  # fmt: skip
    with (
        serving(Held(), store=Store.open(tmp_path)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        done = until(client, client.batches.retrieve(batch.id))
        assert (done.status, done.output_file_id) == ("expired", None)
        assert done.expired_at
        errors = read(client, done.error_file_id)
        assert {each["error"]["code"] for each in errors.values()} == {"batch_expired"}
        kept = client.files.retrieve(done.error_file_id or "")
        assert kept.expires_at == kept.created_at + 3600


def test_a_batch_under_way_waits_for_a_model_that_is_away(tmp_path: Path, engine: Held) -> None:
    with (
        serving(engine, store=Store.open(tmp_path)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        batch = begin(client, row("hold"))
        until(client, batch, "in_progress")
    with (
        serving(EchoEngine(name="other"), store=Store.open(tmp_path)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        assert client.batches.retrieve(batch.id).status == "in_progress"
    with (
        serving(EchoEngine(), store=Store.open(tmp_path)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        assert read(client, until(client, batch).output_file_id).keys() == {"hold"}
