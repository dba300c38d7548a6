"""Whatever the OpenAPI document allows or forbids, no request makes the server fail."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from dialoop.backends.echo import EchoEngine
from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.store.registry import Store
from dialoop.types import Engine, ModelRef
from tests.serve.running import serving
from tests.tiny import tiny_model

MESSAGES = [{"role": "user", "content": "Hi"}]
INPUT = "Hi"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Store.open(tmp_path / "home").close()
    return tmp_path / "home"


def test_no_request_that_the_document_describes_makes_the_server_fail(home: Path) -> None:
    seen = fuzz(EchoEngine(), home, "echo", examples=12)
    assert {"POST /v1/chat/completions 200", "POST /v1/chat/completions 400", "GET /v1/models 200"} <= set(
        seen
    )


@pytest.mark.slow
def test_nor_does_it_with_a_model_and_many_requests(home: Path) -> None:
    engine = LocalEngine(open_models([ModelRef("tiny", tiny_model())]))
    seen = fuzz(engine, home, "tiny", examples=300)
    assert seen["POST /v1/chat/completions 200"] > 10
    assert seen["POST /v1/embeddings 200"] > 10


def fuzz(engine: Engine, home: Path, model: str, *, examples: int) -> Counter[str]:
    """How often each operation answered with each status; none with a 5xx, all errors in OpenAI's shape."""
    seen: Counter[str] = Counter()
    with serving(engine, store=Store.open(home), max_body_bytes=100_000) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for found in schema.get_all_operations():
            for mode in GenerationMode:
                for plain in (False, True):
                    # Where a request has no parts, none of them can be wrong.
                    with suppress(Unsatisfiable):
                        _fuzz(found.ok(), mode, model, seen, examples // 2, plain=plain)
    return seen


def _fuzz(
    operation: Any, mode: GenerationMode, model: str, seen: Counter[str], examples: int, *, plain: bool
) -> None:
    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if plain and isinstance(case.body, dict):
            _make_sound(case.body, model)
        answer = case.call(timeout=240)
        seen[f"{operation.label} {answer.status_code}"] += 1
        check(answer)

    ask()


def _make_sound(body: dict[str, Any], model: str) -> None:
    """What would be refused at once hides what comes after it."""
    for field, sound in (("model", model), ("messages", MESSAGES), ("input", INPUT)):
        if field in body:
            body[field] = sound


def check(answer: Any) -> None:
    """No failure, and errors as OpenAI has them."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert len(answer.content) <= 16_384
