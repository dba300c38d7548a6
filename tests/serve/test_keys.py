"""Keys over HTTP: who comes in, where to, and how fast."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi.routing import APIRoute

from dialoop.backends.echo import EchoEngine
from dialoop.serve.app import make_app
from dialoop.serve.guard import LOOPBACK_HOSTS
from dialoop.serve.routes import OPEN_PATHS, scopes_for
from dialoop.store.registry import Store
from tests.access.test_keys import make_key
from tests.serve.running import serving

CHAT = "/v1/chat/completions"
QUESTION: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


@contextmanager
def served(store: Store, **options: object) -> Iterator[httpx.Client]:
    """The echo engine over the store's home."""
    with (
        serving(EchoEngine(), store=Store.open(store.home), **options) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def sdk(client: httpx.Client, secret: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.base_url}/v1", api_key=secret, max_retries=0)


def test_a_key_opens_what_its_scopes_say(store: Store) -> None:
    secrets = {scope: make_key(store, scope, scope)[1] for scope in ("inference", "data", "metrics", "admin")}
    asked = {
        ("POST", CHAT): {"inference", "admin"},
        ("GET", CHAT): {"data", "admin"},
        ("POST", f"{CHAT}/chatcmpl-1"): {"data", "admin"},
        ("GET", "/metrics"): {"metrics", "admin"},
        ("POST", "/v1/load_lora_adapter"): {"admin"},
        ("DELETE", "/v1/models/echo"): {"admin"},
        ("GET", "/what/is/not/listed"): {"admin"},
        ("GET", "/v1/models"): set(secrets),
        ("GET", "/openapi.json"): set(secrets),
    }
    with served(store) as client:
        for (method, path), allowed in asked.items():
            for scope, secret in secrets.items():
                answer = client.request(method, path, headers=bearer(secret))
                assert (answer.status_code == 403 and "needs a key for" in answer.text) == (
                    scope not in allowed
                ), (method, path, scope, answer.text)
            assert client.request(method, path).status_code == 401
        refused = client.post(CHAT, headers=bearer(secrets["data"])).json()["error"]
        assert refused["code"] == "insufficient_permissions"
        assert "needs a key for inference, and this one is for data" in refused["message"]


def test_every_route_is_listed_with_the_scopes_that_it_needs(store: Store) -> None:
    """One that is forgotten needs `admin`, which is safe and not what its author meant."""
    app = make_app(EchoEngine(), store=store)
    admin = {"/v1/load_lora_adapter", "/v1/unload_lora_adapter"}
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            needed = scopes_for(method.upper(), path)
            meant = path in admin or path in OPEN_PATHS or (path, method) == ("/v1/models/{model}", "delete")
            assert ("admin" in needed) <= meant, (method, path)
    assert all(route.path in OPEN_PATHS | set(app.openapi()["paths"]) for route in _routes(app))


def _routes(app: Any) -> list[APIRoute]:
    return [route for route in app.routes if isinstance(route, APIRoute)]


def test_a_key_that_is_made_and_revoked_counts_on_a_running_server(store: Store) -> None:
    with served(store, hosts=LOOPBACK_HOSTS) as client:
        assert client.get("/v1/models").status_code == 200
        _, secret = make_key(store)
        until(lambda: client.get("/v1/models").status_code == 401)
        assert client.get("/v1/models", headers=bearer(secret)).status_code == 200
        store.keys.revoke("desk")
        until(lambda: client.get("/v1/models", headers=bearer(secret)).status_code == 401)
        assert client.get("/v1/models").status_code == 401
        assert client.get("/health").status_code == client.get("/ready").status_code == 200


def until(true: Any) -> None:
    """Each question takes its time, and a second is some hundred of them."""
    assert any(true() for _ in range(100_000))


def test_the_key_of_the_command_line_may_do_all_beside_those_of_the_store(store: Store) -> None:
    _, secret = make_key(store)
    with served(store, api_key="sk-secret") as client:
        assert client.get("/metrics", headers=bearer("sk-secret")).status_code == 200
        assert client.get("/metrics", headers=bearer(secret)).status_code == 403
        assert client.get("/metrics").status_code == 401


def test_an_address_that_others_reach_is_closed_even_where_the_keys_have_gone(store: Store) -> None:
    with served(store, hosts=frozenset()) as client:
        assert client.get("/v1/models").json()["error"]["code"] == "host_not_allowed"


def test_requests_beyond_the_rate_are_told_when_to_come_again(store: Store) -> None:
    _, secret = make_key(store, rpm=2)
    with served(store) as client, sdk(client, secret) as chat:
        seen = [
            chat.chat.completions.with_raw_response.create(**QUESTION).headers[
                "x-ratelimit-remaining-requests"
            ]
            for _ in range(2)
        ]
        assert seen == ["1", "0"]
        with pytest.raises(openai.RateLimitError) as refused:
            chat.chat.completions.create(**QUESTION)
        assert refused.value.code == "rate_limit_exceeded"
        headers = refused.value.response.headers
        assert 1 <= int(headers["retry-after"]) <= 30
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        assert chat.models.list().data


def test_tokens_beyond_the_rate_are_refused_before_the_model_works(store: Store) -> None:
    _, secret = make_key(store, tpm=30)
    with served(store) as client, sdk(client, secret) as chat:
        first = chat.chat.completions.with_raw_response.create(**QUESTION)
        used = first.parse().usage
        assert used is not None
        assert int(first.headers["x-ratelimit-remaining-tokens"]) in (
            30 - used.total_tokens,
            31 - used.total_tokens,
        )
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match="tokens came faster"):
                chat.chat.completions.create(**QUESTION, max_tokens=29, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_ends_in_insufficient_quota_and_is_written_down(store: Store, stream: bool) -> None:
    key, secret = make_key(store, budget=20, period="month")
    with served(store) as client, sdk(client, secret) as chat:
        for _ in range(2):
            answer = chat.chat.completions.create(**QUESTION, stream=stream)
            list(answer) if stream else None
        with pytest.raises(openai.RateLimitError) as refused:
            chat.chat.completions.create(**QUESTION, max_tokens=10, stream=stream)
        assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
        assert refused.value.response.headers["x-should-retry"] == "false"
    assert store.keys.spent(0) == {key.id: 16}


def test_every_request_leaves_a_line_without_its_content(store: Store) -> None:
    key, secret = make_key(store)
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(record.getMessage()))

    log, keep = logging.getLogger("dialoop.requests"), Keep()
    log.addHandler(keep)
    log.setLevel(logging.INFO)
    try:
        with served(store, log_requests=True) as client:
            client.post(CHAT, json=QUESTION, headers=bearer(secret) | {"x-request-id": "mine-1"})
            client.get("/made/up/by/the/client")
    finally:
        log.removeHandler(keep)
        log.setLevel(logging.NOTSET)
    first, second = lines
    assert set(first) == {"time", "request_id", "method", "route", "status", "ms", "project", "key"}
    assert (first["request_id"], first["route"], first["status"]) == ("mine-1", CHAT, 200)
    assert (first["project"], first["key"]) == (key.project_id, key.id)
    assert (second["route"], second["status"], second["key"]) == ("none", 401, None)
