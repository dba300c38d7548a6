"""What is let in: places, draining, request ids, browsers."""

from __future__ import annotations

import re
import socket

import httpx
import pytest

from dialoop.backends.echo import EchoEngine
from dialoop.errors import ConfigError
from dialoop.serve.server import check_origins
from tests.serve.running import serving
from tests.serve.test_connection import BODY, CHAT, PatientEngine


def test_a_request_beyond_the_places_is_refused_without_its_body() -> None:
    """The second says that a body comes, and sends none of it."""
    engine = PatientEngine("Well")
    with (
        serving(engine, max_open=1) as url,
        httpx.stream("POST", url + CHAT, json={**BODY, "stream": True}, timeout=60) as first,
    ):
        assert engine.begun.wait(60)
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
            connection.sendall(
                f"POST {CHAT} HTTP/1.1\r\nhost: {address.host}\r\ncontent-length: 1000000\r\n\r\n".encode()
            )
            answer = connection.recv(4096).decode()
        assert answer.startswith("HTTP/1.1 429")
        assert "retry-after: 1" in answer
        assert httpx.get(f"{url}/v1/models").status_code == 200
        first.close()
        assert engine.left.wait(60)
        with httpx.stream("POST", url + CHAT, json={**BODY, "stream": True}, timeout=60) as again:
            assert again.status_code == 200


@pytest.mark.parametrize("given", ["req-1", "0af7651916cd43dd8448eb211c80319c", "a:b.c_d-" + "x" * 120])
def test_a_well_formed_request_id_is_sent_back(given: str) -> None:
    with serving(EchoEngine()) as url:
        answers = [httpx.get(url + path, headers={"x-request-id": given}) for path in ("/version", "/none")]
    assert [answer.headers["x-request-id"] for answer in answers] == [given, given]
    assert answers[0].headers["openai-processing-ms"].isdecimal()


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\x7f", "<script>", "-x", "é"])
def test_another_is_replaced(given: str) -> None:
    with serving(EchoEngine()) as url:
        answer = httpx.get(f"{url}/version", headers={"x-request-id": given.encode("latin-1")})  # type: ignore[dict-item]
    assert re.fullmatch(r"req-[0-9a-f]{32}", answer.headers["x-request-id"])


PREFLIGHT = {"origin": "https://chat.example.org", "access-control-request-method": "POST",
             "access-control-request-headers": "authorization,content-type,x-stainless-lang"}  # fmt: skip


def test_browsers_of_other_pages_are_refused_unless_they_are_named() -> None:
    with serving(EchoEngine(), api_key="sk-secret") as url:
        answer = httpx.options(url + CHAT, headers=PREFLIGHT)
        assert answer.status_code == 401
        assert "access-control-allow-origin" not in answer.headers


def test_a_page_that_is_named_may_ask_with_a_key_and_read_the_limits() -> None:
    with serving(EchoEngine(), api_key="sk-secret", cors_origins=["https://chat.example.org"]) as url:
        allowed = httpx.options(url + CHAT, headers=PREFLIGHT)
        assert allowed.headers["access-control-allow-origin"] == "https://chat.example.org"
        assert "access-control-allow-credentials" not in allowed.headers
        assert (
            httpx.options(url + CHAT, headers=PREFLIGHT | {"origin": "https://evil.org"}).status_code == 400
        )
        refused = httpx.post(url + CHAT, json=BODY, headers={"origin": "https://chat.example.org"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://chat.example.org"
        assert "x-ratelimit-remaining-tokens" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "origin", ["chat.example.org", "https://a.org/path", "https://", "null", "ftp://a.org"]
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"scheme, host and port"):
        check_origins([origin], keyed=True)


def test_all_pages_may_come_only_where_a_key_is_asked_for() -> None:
    check_origins(["*"], keyed=True)
    check_origins(["http://localhost:3000", "https://[::1]:8443"], keyed=False)
    with pytest.raises(ConfigError, match="every web page"):
        check_origins(["*"], keyed=False)
