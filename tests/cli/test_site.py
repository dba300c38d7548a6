"""HOME/dialoop.toml, and a server before others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from dialoop.backends.echo import EchoEngine
from dialoop.backends.upstream import Upstream
from dialoop.cli.serve import greeting
from dialoop.cli.site import gateway, read_site, upstreams_of
from dialoop.errors import ConfigError
from tests.backends.faulty import Faulty, cut, error, running
from tests.serve.running import serving

FILE = """
[upstreams.gpu]
url = "http://127.0.0.1:8001/v1/"
kind = "vllm"
weight = 3
models = { "gpt-4o" = "qwen3-32b" }
"""


def test_upstreams_come_from_the_file_and_from_flags(tmp_path: Path) -> None:
    (tmp_path / "dialoop.toml").write_text(FILE)
    found = upstreams_of(read_site(tmp_path), ["cpu=http://127.0.0.1:8002/v1"])
    assert set(found) == {"gpu", "cpu"}
    assert (found["gpu"].url, found["gpu"].weight) == ("http://127.0.0.1:8001/v1", 3)
    assert upstreams_of(read_site(tmp_path / "empty"), []) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[upstreams.a]\nurl = 'http://a'\nkey = 'sk-1'", "did you mean 'key_env'"),
        ("[upstreams.a]\nurl = 'file:///x'", "url"),
        ("[upstream.a]\nurl = 'http://a'", "did you mean 'upstreams'"),
        ("[upstreams", "TOML"),
    ],
)
def test_a_file_that_cannot_be_used_names_the_fault(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "dialoop.toml").write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        read_site(tmp_path)
    assert "sk-1" not in str(caught.value)


@contextmanager
def client_of(*urls: str, local: EchoEngine | None = None) -> Iterator[OpenAI]:
    engine = gateway({f"up{i}": Upstream(url=url) for i, url in enumerate(urls)}, local)
    with serving(engine) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def say(client: OpenAI, model: str = "m", stream: bool = False) -> str:
    asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    answer = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    if stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    return str(answer.choices[0].message.content)


def test_local_and_remote_models_are_served_side_by_side() -> None:
    with running(Faulty()) as url, client_of(url, local=EchoEngine()) as client:
        assert {model.id for model in client.models.list()} == {"echo", "m"}
        assert (say(client, "echo"), say(client, "m"), say(client, "m", stream=True)) == (
            "Hi", "Hi there", "Hi there",
        )  # fmt: skip


def test_when_one_upstream_fails_the_client_does_not_notice() -> None:
    bad, good = Faulty(), Faulty()
    bad.acts = [error(500), cut, error(429), error(401)]
    with running(bad) as one, running(good) as other, client_of(one, other) as client:
        assert [say(client, stream=i % 2 == 0) for i in range(8)] == ["Hi there"] * 8
    assert bad.acts == []


def test_when_no_upstream_answers_the_client_is_told_when_to_come_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with client_of("http://127.0.0.1:9/v1") as client, pytest.raises(openai.NotFoundError):
        say(client)
    assert "up0 cannot be reached" in capsys.readouterr().err
    full = Faulty()
    full.acts = [error(429, headers={"retry-after": "30"})]
    with running(full) as url, client_of(url) as client, pytest.raises(openai.RateLimitError) as caught:
        say(client)
    assert caught.value.response.headers["retry-after"] == "30"


def test_the_greeting_has_something_to_say_without_a_model() -> None:
    assert "no model" in greeting("http://127.0.0.1:1", (), keyed=False)
