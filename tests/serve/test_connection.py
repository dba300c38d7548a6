"""Hanging up, keys, hosts, and the end of the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from dialoop.backends.echo import EchoEngine
from dialoop.errors import ConfigError
from dialoop.serve.app import make_app
from dialoop.serve.guard import LOOPBACK_HOSTS
from dialoop.serve.server import bind, hosts_for
from dialoop.types import ChatRequest, Delta
from tests.serve.running import serving

CHAT = "/v1/chat/completions"
BODY = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}


class PatientEngine(EchoEngine):
    """Says `first`, if anything, and then waits for ever; `left` is set when it is closed."""

    def __init__(self, first: str) -> None:
        super().__init__()
        self.first, self.begun, self.left = first, threading.Event(), threading.Event()

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:  # type: ignore[override]
        try:
            if self.first:
                yield Delta(0, self.first)
            self.begun.set()
            await asyncio.Event().wait()
        finally:
            self.left.set()


@pytest.mark.parametrize("first", ["", "Well"])
@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_closes_the_engines_generator(first: str, stream: bool) -> None:
    engine = PatientEngine(first)
    with serving(engine) as url:
        address = httpx.URL(url)
        raw = json.dumps({**BODY, "stream": stream}).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: {address.host}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(raw)}\r\n\r\n"
        )
        with socket.create_connection((address.host, address.port or 0)) as connection:
            connection.sendall(head.encode() + raw)
            assert engine.begun.wait(20)
            assert not engine.left.is_set()
        assert engine.left.wait(20)


KEY = "sk-secret"
PATHS = [
    "/v1/models",
    "/v1/models/echo",
    "/version",
    "/metrics",
    "/openapi.json",
    "/nothing",
    "/health/../v1/models",
]


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    with serving(EchoEngine(), api_key=KEY) as url:
        yield url


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", KEY]
)
def test_every_path_but_health_asks_for_the_key(locked: str, path: str, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = httpx.get(locked + path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert KEY not in answer.text


def test_the_key_opens_and_health_needs_none(locked: str) -> None:
    assert httpx.get(f"{locked}/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    assert httpx.get(f"{locked}/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("host", "status"), [("localhost", 200), ("127.0.0.1:99", 200), ("evil.example", 403)]
)
def test_a_page_that_rebinds_its_name_is_refused(host: str, status: int) -> None:
    with serving(EchoEngine(), hosts=LOOPBACK_HOSTS) as url:
        answer = httpx.get(f"{url}/v1/models", headers={"host": host})
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_an_address_that_others_reach_needs_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="--api-key"):
        hosts_for(host, keyed=False)
    assert hosts_for(host, keyed=True) == frozenset()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_without_a_key_checks_the_host(host: str) -> None:
    assert hosts_for(host, keyed=False) == LOOPBACK_HOSTS


def test_a_port_in_use_is_an_error_that_says_how_to_mend_it() -> None:
    with bind("127.0.0.1", 0) as first, pytest.raises(ConfigError, match="--port"):
        bind("127.0.0.1", first.getsockname()[1])


def test_every_answer_has_a_request_id_of_its_own() -> None:
    with serving(EchoEngine()) as url:
        answers = [httpx.get(f"{url}{path}") for path in ("/health", "/nothing", "/health")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3


def test_the_openapi_document_describes_the_body() -> None:
    document = make_app(EchoEngine()).openapi()
    schema = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"model", "messages", "temperature", "stop", "logit_bias", "tools"} <= set(schema["properties"])
    assert schema["required"] == ["model", "messages"]
    for reference in _references(document):
        name = reference.removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"]


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


SLOW_SERVER = """
import asyncio, sys
from dialoop.backends.echo import EchoEngine
from dialoop.serve.app import make_app
from dialoop.serve.server import Server, bind, url_of
from dialoop.types import Delta

class Gated(EchoEngine):
    async def chat(self, request):
        yield Delta(0, "begin ")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        async for delta in super().chat(request):
            yield delta

listening = bind("127.0.0.1", 0)
print(url_of(listening), flush=True)
Server(make_app(Gated())).run(sockets=[listening])
"""


ENDLESS = """
class Endless(EchoEngine):
    async def chat(self, request):
        while True:
            yield Delta(0, "x" * 65536)

listening ="""
DEAF_CLIENT = SLOW_SERVER.replace("listening =", ENDLESS, 1).replace("Gated())", "Endless()), grace=0.5")


def test_a_client_that_has_stopped_reading_holds_up_no_end() -> None:
    process, url = started(DEAF_CLIENT)
    with process, httpx.stream("POST", url + CHAT, json={**BODY, "stream": True}, timeout=60) as answer:
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def started(code: str) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout
    return process, process.stdout.readline().strip()


def until_draining(url: str) -> None:
    """`/ready` turns red, while the server listens still."""
    while (answer := httpx.get(f"{url}/ready", timeout=60)).status_code == 200:
        pass
    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})


def test_sigterm_lets_streams_finish_and_ends_with_exit_code_0() -> None:
    process, url = started(SLOW_SERVER)
    with process:
        assert process.stdin
        with httpx.stream("POST", url + CHAT, json={**BODY, "stream": True}, timeout=60) as answer:
            lines = answer.iter_lines()
            while "begin" not in next(lines):
                pass
            process.send_signal(signal.SIGTERM)
            until_draining(url)
            refused = httpx.post(url + CHAT, json=BODY, timeout=60)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert refused.headers["retry-after"]
            assert httpx.get(f"{url}/health").status_code == 200
            process.stdin.write("go on\n")
            process.stdin.flush()
            rest = list(lines)
        assert "data: [DONE]" in rest
        assert any("Hi" in line for line in rest)
        assert process.wait(60) == 0
