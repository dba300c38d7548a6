"""The page of the API is made from the code, and all its examples work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import dialoop
from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.serve.fields import REFUSED, ChatBody, CompletionBody
from dialoop.types import ModelRef
from tests.serve.running import serving
from tools.docs.api import PAGES, page
from tools.docs.examples import CHAT, TEXT, Fields
from tools.docs.peers import BY_PARAMETER, NOTES, PEERS, peers_of

BASE = Path(dialoop.__file__).parent / "assets" / "dialoop-base"
HI = {"model": "dialoop-base", "messages": [{"role": "user", "content": "Hi"}]}
TEXTS = {"model": "dialoop-base", "prompt": "Hello", "max_tokens": 4}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    engine = LocalEngine({"dialoop-base": open_model(ModelRef("dialoop-base", BASE))})
    with serving(engine) as url:
        yield url


@pytest.mark.parametrize("language", PAGES)
def test_the_page_is_what_the_code_says(language: str) -> None:
    told = PAGES[language].read_text(encoding="utf-8")
    assert told == page(language), "run `python -m tools.docs.api`"


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_the_code_on_the_page_runs(url: str, path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"URL": url}
    for block in blocks:
        exec(compile(block, str(path), "exec"), names)
    names["client"].close()
    assert len(blocks) > 6


def test_every_parameter_has_an_example_and_a_comparison() -> None:
    assert CHAT.keys() == ChatBody.model_fields.keys() | REFUSED.keys()
    assert CHAT.keys() | TEXT.keys() >= CompletionBody.model_fields.keys()
    assert CHAT.keys() | TEXT.keys() == BY_PARAMETER.keys() >= NOTES.keys()
    assert all(len(peers_of(name)) == len(PEERS) for name in BY_PARAMETER)


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
