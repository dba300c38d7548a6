"""HTTP over an engine in a child process, which falls and comes again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from dialoop.cli.named import adapter_folders
from dialoop.engine.process import ProcessEngine
from dialoop.types import ModelRef
from tests.encoders import make_encoder
from tests.engine.children import WAIT, hearing
from tests.engine.test_adapters import write_adapter
from tests.serve.running import serving
from tests.tiny import make_tiny_model, tiny_model

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "我想退货 please"}], "temperature": 0}


def client_of(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=WAIT)


def ask(client: OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{**QUESTION, "max_tokens": 8, **fields})


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers, unless cut, take minutes."""
    return make_tiny_model(tmp_path_factory.mktemp("long") / "tiny", context=32768)


@pytest.fixture
def movable(long_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(long_model, tmp_path / "tiny"))


def test_a_fallen_engine_is_told_by_every_route_and_mends(movable: Path) -> None:
    """While its model is away it cannot come again: what clients see meanwhile is no race."""
    engine = ProcessEngine([ModelRef("tiny", movable)])
    with serving(engine) as url, client_of(url) as client, hearing() as heard:
        before = ask(client, logprobs=True, top_logprobs=2).choices[0]
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        stream = ask(client, max_tokens=30_000, stream=True, extra_body={"ignore_eos": True})
        next(stream)
        away = movable.rename(movable.with_name("away"))
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(openai.APIError, match="started again") as broken:
            list(stream)
        assert broken.value.code == "engine_down"
        heard.wait_for("no such directory")
        assert_down(url, client)
        away.rename(movable)
        heard.wait_for("there again")
        assert httpx.get(f"{url}/health").status_code == 200
        assert ask(client, logprobs=True, top_logprobs=2).choices[0] == before


def assert_down(url: str, client: OpenAI) -> None:
    health = httpx.get(f"{url}/health")
    assert (health.status_code, health.json()) == (503, {"status": "starting"})
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as refused:
            ask(client, stream=stream)
        assert refused.value.status_code == 503
        assert refused.value.code == "engine_down"
        assert refused.value.type == "server_error"
        assert int(refused.value.response.headers["retry-after"]) >= 1
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_vectors_and_hot_adapters_are_served_by_every_child(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapters" / "shop", 1)
    tiny, bert = ModelRef("tiny", tiny_model()), ModelRef("bert", make_encoder(tmp_path / "bert"))
    engine, folders = ProcessEngine([tiny, bert]), adapter_folders(tmp_path / "home", [adapter.parent])
    with (
        serving(engine, adapters=folders) as url, client_of(url) as client, hearing() as heard
    ):  # fmt: skip
        body = {"lora_name": "shop", "lora_path": str(adapter)}
        assert httpx.post(f"{url}/v1/load_lora_adapter", json=body).status_code == 200
        told: list[Any] = []
        for _ in range(2):
            answer = ask(client, model="shop", extra_body={"best_of": 2, "prompt_logprobs": 1, "echo": False})
            vectors = [client.embeddings.create(model=m, input="Hi").data for m in ("tiny", "shop", "bert")]
            told.append((answer.choices, answer.prompt_logprobs, vectors))
            if len(told) == 1:
                os.kill(engine.pid, signal.SIGKILL)
                heard.wait_for("there again")
        assert told[0] == told[1]
        assert told[0][0][0].message.content != ask(client).choices[0].message.content
        assert httpx.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": "shop"}).status_code == 200
        with pytest.raises(openai.NotFoundError):
            ask(client, model="shop")


@pytest.fixture
def served(long_model: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`dialoop serve` in a process group of its own, and its URL."""
    code = "from dialoop.cli import main; main()"
    command = [sys.executable, "-c", code, "--home", str(tmp_path), "serve", str(long_model), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout
        yield process, process.stdout.readline().split(" on ")[1].strip().removesuffix("/v1")
        process.kill()


def test_ctrl_c_lets_open_answers_finish_and_ends_both_processes(
    served: tuple[subprocess.Popen[str], str],
) -> None:
    """The child holds the same standard output: it can be read to its end once both are gone."""
    process, url = served
    with client_of(url) as client:
        whole = ask(client, max_tokens=300).choices[0].message.content
        stream = ask(client, max_tokens=300, stream=True)
        said = next(stream).choices[0].delta.content
        os.killpg(process.pid, signal.SIGINT)
        said += "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert said == whole
    assert process.stdout
    assert "curl" in process.stdout.read()
    assert process.wait(WAIT) == 0
