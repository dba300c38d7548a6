"""The pages of the API are made from the code, and all that they show works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from openai import OpenAI

from dialoop.backends.echo import EchoEngine
from dialoop.serve.app import make_app
from dialoop.serve.fields import REFUSED, ChatBody, CompletionBody
from dialoop.serve.responses import fields as responses
from dialoop.store.registry import Store
from tests.docs.served import platform
from tools.docs.api import DOCUMENTED, page, routes, schema_of, sources
from tools.docs.examples import CHAT, RESPONSE, TEXT, Fields
from tools.docs.peers import BY_PARAMETER, NOTES, PEERS, peers_of_route

HI = {"model": "dialoop-base", "messages": [{"role": "user", "content": "Hi"}]}
TEXTS = {"model": "dialoop-base", "prompt": "Hello", "max_tokens": 4}
PAGES = sources()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with platform(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_what_the_code_says(path: Path) -> None:
    told = path.read_text(encoding="utf-8")
    assert told == page(PAGES[path]), "run `python -m tools.docs.api`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_code_on_the_page_runs(url: str, path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        names: dict[str, Any] = {"URL": url, "client": client}
        for block in blocks:
            exec(compile(block, str(path), "exec"), names)
        names["client"].close()
    assert blocks


def is_comparison(told: list[str]) -> bool:
    """A letter a peer, each of those that the page explains: somebody looked."""
    return len(told) == len(PEERS) and set(told) <= set("YPNSE")


def test_every_parameter_has_an_example_and_a_comparison() -> None:
    assert CHAT.keys() == ChatBody.model_fields.keys() | REFUSED.keys()
    assert RESPONSE.keys() == responses.ResponseBody.model_fields.keys() | responses.REFUSED.keys()
    assert CHAT.keys() | TEXT.keys() >= CompletionBody.model_fields.keys()
    assert CHAT.keys() | TEXT.keys() == BY_PARAMETER.keys() >= NOTES.keys()
    for key, route in DOCUMENTED.items():
        parameters = schema_of(route)["properties"].keys()
        assert route.rows.keys() >= parameters, key
        assert not route.peers or route.peers.keys() >= parameters, key
        assert all(map(is_comparison, map(str.split, route.peers.values()))), key


def test_every_route_is_compared_and_every_one_that_takes_a_body_has_a_table_on_a_page() -> None:
    document = make_document()
    marks = "".join(source.read_text(encoding="utf-8") for source in PAGES.values())
    for method, path, _ in routes():
        assert is_comparison(peers_of_route(method, path)), f"{method} {path}"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            key = f"{method.upper()} {ALIASES.get(path, path)}"
            assert "requestBody" not in operation or marks.count(f"<!-- fields {key} -->") == 2
    assert all(marks.count(f"<!-- fields {key} -->") == 2 for key in DOCUMENTED)


ALIASES = {"/score": "/v1/score", "/rerank": "/v1/rerank", "/classify": "/v1/classify"}


def make_document() -> dict[str, Any]:
    with TemporaryDirectory() as home, Store.open(Path(home)) as store:
        return make_app(EchoEngine(), store=store).openapi()


def post(url: str, path: str, fields: Fields) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=fields, timeout=60)


def without_limits(fields: Fields) -> Fields:
    limit = {} if "max_tokens" in fields else {"max_completion_tokens": 8}
    return {**HI, **limit, **fields}


@pytest.mark.parametrize("parameter", CHAT)
def test_an_example_of_each_parameter_works_and_another_is_refused(url: str, parameter: str) -> None:
    good, bad = CHAT[parameter]
    answer = post(url, "/v1/chat/completions", without_limits(good))
    assert answer.status_code == 200, answer.text
    refused = post(url, "/v1/chat/completions", without_limits(bad))
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"].startswith(parameter)


@pytest.mark.parametrize("parameter", TEXT)
def test_an_example_of_each_parameter_of_text_completions_works(url: str, parameter: str) -> None:
    good, bad = TEXT[parameter]
    answer = post(url, "/v1/completions", {**TEXTS, **good})
    assert answer.status_code == 200, answer.text
    refused = post(url, "/v1/completions", {**TEXTS, **bad})
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == parameter
