"""Each parameter on the pages of the platform: its example works, and the other one is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from dialoop.cli.named import adapter_folders
from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.types import ModelRef
from tests.docs.served import platform
from tests.engine.test_adapters import write_adapter
from tests.serve.running import serving
from tests.serve.test_batches import jsonl
from tests.serve.test_fine_tuning import ROWS
from tests.tiny import tiny_model
from tools.docs.platform import ROUTES, Documented, Fields

ADAPTERS = [key for key in ROUTES if "lora_adapter" in key]
LINE = {
    "custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
    "body": {"model": "dialoop-base", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1},
}  # fmt: skip


@dataclass
class Platform:
    """A server and the things on it that the examples name."""

    client: httpx.Client
    names: dict[str, str]

    def send(self, key: str, route: Documented, fields: Fields) -> httpx.Response:
        method, path = key.split(" ")
        if "{upload_id}" in path:
            self.begin_upload(with_part=path.endswith("complete"))
        path = path.format(**self.names)
        given = self.named({**route.base, **fields})
        if method == "GET":
            return self.client.get(path, params=given)
        if route.body.rpartition(":")[2].isupper():
            parts = {
                name: ("a.txt", value) if isinstance(value, bytes) else (None, value)
                for name, value in given.items()
                if value is not None
            }
            return self.client.post(path, files=parts)
        return self.client.post(path, json=given)

    def named(self, value: Any) -> Any:
        """With the ids in place of their names."""
        if isinstance(value, dict):
            return {name: self.named(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.named(each) for each in value]
        return self.names.get(value, value) if isinstance(value, str) else value

    def begin_upload(self, *, with_part: bool) -> None:
        self.names["upload_id"] = self.made("/v1/uploads", ROUTES["POST /v1/uploads"].base)
        if with_part:
            sent = self.client.post(
                f"/v1/uploads/{self.names['upload_id']}/parts", files={"data": ("a", b"some text")}
            )
            self.names["part"] = sent.json()["id"]

    def made(self, path: str, body: Fields) -> str:
        return str(self.client.post(path, json=self.named(body)).json()["id"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with (
        platform(tmp_path_factory.mktemp("home")) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        here = Platform(client, {})
        for name, purpose, data in (
            ("file-rows", "fine-tune", ROWS),
            ("file-batch", "batch", jsonl([LINE])),
            ("file-any", "user_data", b"x"),
        ):
            form = {"purpose": (None, purpose), "file": ("a.jsonl", data)}
            here.names[name] = client.post("/v1/files", files=form).json()["id"]
        chat = {**LINE["body"], "store": True}  # type: ignore[dict-item]
        here.names["completion_id"] = here.made("/v1/chat/completions", chat)
        for name, route, path in (
            ("response_id", "POST /v1/responses", "/v1/responses"),
            ("job_id", "POST /v1/fine_tuning/jobs", "/v1/fine_tuning/jobs"),
            ("eval_id", "POST /v1/evals", "/v1/evals"),
        ):
            here.names[name] = here.made(path, ROUTES[route].base)
        runs = "POST /v1/evals/{eval_id}/runs"
        here.names["run_id"] = here.made(f"/v1/evals/{here.names['eval_id']}/runs", ROUTES[runs].base)
        yield here


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("adapters")
    write_adapter(folder / "allowed/desk", 1)
    engine = LocalEngine({"base": open_model(ModelRef("base", tiny_model()))})
    folders = adapter_folders(folder / "home", [folder / "allowed"])
    with serving(engine, adapters=folders) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield Platform(client, {"/adapters/desk": str(folder / "allowed/desk")})


def check(here: Platform, key: str, parameter: str) -> None:
    route = ROUTES[key]
    good, bad = route.rows[parameter]
    answer = here.send(key, route, good)
    assert answer.is_success, answer.text
    refused = here.send(key, route, bad)
    assert refused.status_code in (400, 404, 415), refused.text
    error = refused.json()["error"]
    named = {name.replace("[", ".").replace("]", "") for name in (parameter, *bad)}
    assert any(error["param"].replace("[", ".").startswith(name) for name in named), json.dumps(error)


PARAMETERS = [(key, name) for key, route in ROUTES.items() for name in route.rows if key not in ADAPTERS]


@pytest.mark.parametrize(("key", "parameter"), PARAMETERS)
def test_an_example_of_each_parameter_works_and_another_is_refused(
    served: Platform, key: str, parameter: str
) -> None:
    check(served, key, parameter)


@pytest.mark.parametrize("parameter", ROUTES[ADAPTERS[0]].rows)
def test_adapters_are_loaded_as_the_page_says(adapters: Platform, parameter: str) -> None:
    check(adapters, ADAPTERS[0], parameter)


@pytest.mark.parametrize("parameter", ROUTES[ADAPTERS[1]].rows)
def test_adapters_are_unloaded_as_the_page_says(adapters: Platform, parameter: str) -> None:
    adapters.send(ADAPTERS[0], ROUTES[ADAPTERS[0]], {})
    check(adapters, ADAPTERS[1], parameter)
