"""Adapters loaded and unloaded over HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from dialoop.backends.echo import EchoEngine
from dialoop.cli.named import adapter_folders
from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.serve.adapters import AdapterFolders
from dialoop.types import ModelRef
from tests.engine.test_adapters import write_adapter
from tests.serve.running import serving
from tests.tiny import make_tiny_model, tiny_model

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters below `allowed`, one beside it, and links out."""
    folder = tmp_path_factory.mktemp("http")
    for seed, name in enumerate(("allowed/one", "allowed/two", "outside"), 1):
        write_adapter(folder / name, seed)
    (folder / "allowed/link").symlink_to(folder / "outside")
    (folder / "allowed/part").mkdir()
    shutil.copy(folder / "allowed/one/adapter_config.json", folder / "allowed/part")
    weights = folder / "outside/adapter_model.safetensors"
    (folder / "allowed/part/adapter_model.safetensors").symlink_to(weights)
    return folder


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    engine = LocalEngine({"base": open_model(ModelRef("base", tiny_model()))})
    with serving(engine, adapters=adapter_folders(folder / "home", [folder / "allowed"])) as url:
        yield url


def load(url: str, name: str, path: Path, **more: Any) -> httpx.Response:
    return httpx.post(url + LOAD, json={"lora_name": name, "lora_path": str(path), **more})


def said(url: str, model: str) -> str:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello"}], temperature=0, max_tokens=12
        )
    return answer.choices[0].message.content or ""


def names(url: str) -> list[str]:
    return [row["id"] for row in httpx.get(f"{url}/v1/models").json()["data"]]


def test_an_adapter_is_loaded_replaced_and_unloaded(url: str, folder: Path) -> None:
    answer = load(url, "shop", folder / "allowed/one")
    assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'shop' added successfully.")
    assert names(url) == ["base", "shop"]
    first = said(url, "shop")
    assert load(url, "shop", folder / "allowed/two").json()["error"]["param"] == "lora_name"
    assert load(url, "shop", folder / "allowed/two", load_inplace=True).status_code == 200
    assert len({first, said(url, "shop"), said(url, "base")}) == 3
    gone = httpx.post(url + UNLOAD, json={"lora_name": "shop"})
    assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'shop' removed successfully.")
    assert names(url) == ["base"]
    with pytest.raises(NotFoundError):
        said(url, "shop")


@pytest.mark.parametrize(
    "path",
    ["outside", "allowed/link", "allowed/part", "allowed/../outside", "allowed/one/../../outside", "nowhere"],
)
def test_a_path_that_leads_out_of_the_directories_is_refused(url: str, folder: Path, path: str) -> None:
    answer = load(url, "shop", folder / path)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "lora_path"
    assert "--adapter-dir" in answer.json()["error"]["message"]
    assert names(url) == ["base"]


@pytest.mark.parametrize("path", ["", "\0", "x" * 5000, "/" + "x" * 300, "~/x", 5])
def test_a_path_that_is_none_is_a_400(url: str, path: Any) -> None:
    answer = httpx.post(url + LOAD, json={"lora_name": "shop", "lora_path": path})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "lora_path"


def test_what_does_not_fit_says_so(url: str, folder: Path, tmp_path: Path) -> None:
    missing = load(url, "shop", folder / "allowed/none")
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "lora_path")
    (folder / "allowed/empty").mkdir(exist_ok=True)
    assert load(url, "shop", folder / "allowed/empty").status_code == 400
    other = shutil.copytree(folder / "allowed/one", folder / "allowed/other", dirs_exist_ok=True)
    config = json.loads((other / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(make_tiny_model(tmp_path / "strange", seed=9))
    (other / "adapter_config.json").write_text(json.dumps(config))
    answer = load(url, "shop", other)
    assert answer.status_code == 400
    assert "served here" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 129, 7, None])
def test_a_name_that_cannot_be_one_is_a_400(url: str, folder: Path, name: Any) -> None:
    answer = load(url, name, folder / "allowed/one")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "lora_name")


def test_the_base_stays(url: str, folder: Path) -> None:
    assert httpx.post(url + UNLOAD, json={"lora_name": "base"}).status_code == 400
    assert load(url, "base", folder / "allowed/one", load_inplace=True).status_code == 400
    assert httpx.post(url + UNLOAD, json={"lora_name": "shop"}).status_code == 404
    assert said(url, "base")


@pytest.mark.parametrize("route", [LOAD, UNLOAD])
def test_a_server_that_was_not_told_where_from_loads_and_unloads_nothing(route: str) -> None:
    with serving(EchoEngine()) as url:
        answer = httpx.post(url + route, json={"lora_name": "echo", "lora_path": "/"})
    assert answer.status_code == 403
    assert "--adapter-dir" in answer.json()["error"]["message"]


def test_an_engine_that_cannot_load_says_so(tmp_path: Path) -> None:
    folders = AdapterFolders((tmp_path,), lambda folder: ModelRef("x", folder))
    with serving(EchoEngine(), adapters=folders) as url:
        answer = httpx.post(url + UNLOAD, json={"lora_name": "echo"})
    assert answer.json()["error"]["code"] == "unsupported"
