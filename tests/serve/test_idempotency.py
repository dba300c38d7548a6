"""Idempotency-Key: done once, answered alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from dialoop.backends.echo import EchoEngine
from dialoop.store.registry import Store
from dialoop.types import ChatRequest, Delta
from tests.access.test_keys import make_key
from tests.serve.running import serving

CHAT = "/v1/chat/completions"


class CountingEngine(EchoEngine):
    """Counts its chats; "wait" waits for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.chats, self.begun, self.gate = 0, threading.Event(), threading.Event()

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:  # type: ignore[override]
        self.chats += 1
        if request.conversation.messages[-1].content == "wait":
            self.begun.set()
            await asyncio.to_thread(self.gate.wait)
        async for delta in super().chat(request):
            yield delta


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def client(engine: CountingEngine, tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        serving(engine, store=Store.open(tmp_path / "home"), max_body_bytes=10_000) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def ask(client: httpx.Client, key: str, text: str = "Hi", **more: Any) -> httpx.Response:
    headers = {"idempotency-key": key, **more.pop("headers", {})}
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], **more}
    return client.post(CHAT, json=body, headers=headers)


def test_the_same_request_again_is_answered_alike_and_done_once(
    client: httpx.Client, engine: CountingEngine
) -> None:
    first, again, other = (ask(client, key) for key in ("a", "a", "b"))
    assert (first.status_code, again.content, again.headers["content-type"]) == (
        200, first.content, first.headers["content-type"],
    )  # fmt: skip
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert other.json()["id"] != first.json()["id"]
    assert engine.chats == 2


def test_another_request_under_the_same_key_is_refused(client: httpx.Client, engine: CountingEngine) -> None:
    ask(client, "a")
    for answer in (ask(client, "a", "Ho"), client.post("/v1/embeddings", headers={"idempotency-key": "a"})):
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "idempotency_key_reused")
    assert engine.chats == 1


def test_a_key_whose_request_is_under_way_is_a_conflict(client: httpx.Client, engine: CountingEngine) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, client, "a", "wait")
        assert engine.begun.wait(60)
        answer = ask(client, "a", "wait")
        engine.gate.set()
        first = waiting.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    assert answer.headers["retry-after"] == "1"
    assert ask(client, "a", "wait").content == first.content


def test_a_stream_is_done_once_though_it_cannot_be_repeated(
    client: httpx.Client, engine: CountingEngine
) -> None:
    assert ask(client, "a", stream=True).text.endswith("data: [DONE]\n\n")
    again = ask(client, "a", stream=True)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_key_used")
    assert again.headers["x-should-retry"] == "false"
    assert engine.chats == 1


def test_what_failed_may_be_tried_again(client: httpx.Client, engine: CountingEngine) -> None:
    assert ask(client, "a", n=0).status_code == 400
    assert ask(client, "a").status_code == 200
    assert engine.chats == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_none_is_refused(client: httpx.Client, key: str) -> None:
    assert ask(client, key).status_code == 400


def test_a_body_too_long_is_refused_as_without_a_key(client: httpx.Client) -> None:
    assert ask(client, "a", "x" * 20_000).status_code == 413


def test_answers_outlive_the_server_and_stay_within_their_project(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        _, mine = make_key(store, "mine")
        _, colleague = make_key(store, "colleague")
        _, stranger = make_key(store.of(store.projects.ensure("other")), "stranger")
    told = []
    for secret in (mine, colleague, stranger):
        with (
            serving(EchoEngine(), store=Store.open(tmp_path / "home")) as url,
            httpx.Client(base_url=url) as client,
        ):
            told.append(ask(client, "a", headers={"authorization": f"Bearer {secret}"}).json()["id"])
    assert told[0] == told[1] != told[2]


def upload(client: httpx.Client, key: str, content: bytes, boundary: str) -> httpx.Response:
    """A form as httpx writes it, in pieces, under a boundary of its own."""
    form = httpx.Request(
        "POST", "http://x", data={"purpose": "user_data"}, files={"file": ("a.txt", content)},
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )  # fmt: skip
    form.read()
    pieces = (form.content[at : at + 1000] for at in range(0, len(form.content), 1000))
    headers = {"content-type": form.headers["content-type"], "idempotency-key": key}
    return client.post("/v1/files", content=pieces, headers=headers)


def test_a_file_sent_again_is_kept_once_though_its_form_has_another_boundary(client: httpx.Client) -> None:
    """It is longer than other bodies may be: it is not held in memory to be compared."""
    content = b"line\r\n" * 5000
    first, again = (upload(client, "up", content, boundary) for boundary in ("one", "another"))
    assert (first.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert [each["id"] for each in client.get("/v1/files").json()["data"]] == [first.json()["id"]]
    other = upload(client, "up", content.replace(b"i", b"u", 1), "one")
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_reused")


def test_a_body_that_the_route_does_not_read_counts_all_the_same(client: httpx.Client) -> None:
    made = client.post(
        "/v1/uploads",
        json={"filename": "a", "bytes": 1, "purpose": "user_data", "mime_type": "text/plain"},
    ).json()
    headers = {"idempotency-key": "end"}
    cancel = f"/v1/uploads/{made['id']}/cancel"
    first = client.post(cancel, headers=headers, content=b"a" * 9000)
    assert first.json()["status"] == "cancelled"
    assert client.post(cancel, headers=headers, content=b"a" * 9000).json() == first.json()
    assert client.post(cancel, headers=headers, content=b"b").status_code == 400
