"""The OpenAPI document tells what the routes of kept data take and give."""

from __future__ import annotations

from typing import Any

import pytest

from dialoop.backends.echo import EchoEngine
from dialoop.serve.app import make_app
from dialoop.store.registry import Store

ROUTES = [
    ("post", "/v1/files"), ("get", "/v1/files"), ("get", "/v1/files/{file_id}"),
    ("delete", "/v1/files/{file_id}"), ("get", "/v1/files/{file_id}/content"), ("post", "/v1/uploads"),
    ("post", "/v1/uploads/{upload_id}/parts"),
    ("post", "/v1/uploads/{upload_id}/complete"), ("post", "/v1/uploads/{upload_id}/cancel"),
    ("get", "/v1/chat/completions"), ("get", "/v1/chat/completions/{completion_id}"),
    ("post", "/v1/chat/completions/{completion_id}"), ("delete", "/v1/chat/completions/{completion_id}"),
    ("get", "/v1/chat/completions/{completion_id}/messages"), ("post", "/v1/batches"), ("get", "/v1/batches"),
    ("get", "/v1/batches/{batch_id}"), ("post", "/v1/batches/{batch_id}/cancel"),
]  # fmt: skip
WITH_BODY = {
    "/v1/files": "multipart/form-data", "/v1/uploads/{upload_id}/parts": "multipart/form-data",
    "/v1/uploads": "application/json", "/v1/uploads/{upload_id}/complete": "application/json",
    "/v1/batches": "application/json", "/v1/chat/completions/{completion_id}": "application/json",
}  # fmt: skip


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with Store.open(tmp_path_factory.mktemp("home")) as store:
        return make_app(EchoEngine(), store=store).openapi()


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for each in value for found in references(each)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [found for each in value.values() for found in references(each)]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_tells_its_bodies(document: dict[str, Any], method: str, path: str) -> None:
    told = document["paths"][path][method]
    assert told["description"]
    given = told["responses"]["200"]["content"]
    assert all(each["schema"] for each in given.values())
    if method == "post" and path in WITH_BODY:
        schema = told["requestBody"]["content"][WITH_BODY[path]]["schema"]
        assert schema["properties"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


def test_lists_tell_their_bounds(document: dict[str, Any]) -> None:
    told = {each["name"]: each["schema"] for each in document["paths"]["/v1/files"]["get"]["parameters"]}
    assert told.keys() == {"limit", "after", "order", "purpose"}
    assert (told["limit"]["minimum"], told["limit"]["maximum"]) == (1, 10_000)
