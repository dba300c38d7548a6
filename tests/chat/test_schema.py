"""Schemas are closed where that forbids nothing they mean, and refused where they would not be kept to."""

from __future__ import annotations

from typing import Any

import pytest

from dialoop.chat.schema import followable
from dialoop.errors import RequestError

ORDER = {"type": "object", "properties": {"order": {"type": "integer"}}}


def test_objects_that_list_their_properties_are_closed_at_every_depth() -> None:
    schema = {
        "type": "object",
        "properties": {"one": ORDER, "many": {"type": "array", "items": ORDER}, "either": {"anyOf": [ORDER]}},
        "$defs": {"order": ORDER},
    }
    closed = followable(schema, "tools")
    assert closed["additionalProperties"] is False
    inner = (
        closed["properties"]["one"], closed["properties"]["many"]["items"], closed["$defs"]["order"],
        closed["properties"]["either"]["anyOf"][0],
    )  # fmt: skip
    assert all(each["additionalProperties"] is False for each in inner)
    assert "additionalProperties" not in ORDER


@pytest.mark.parametrize(
    "schema",
    [
        {**ORDER, "additionalProperties": True},
        {**ORDER, "patternProperties": {"^x": {}}},
        {**ORDER, "anyOf": [{"required": ["order"]}]},
        {"allOf": [ORDER, ORDER]},
        {"type": "object"},
        {"enum": [ORDER]},
    ],
)
def test_what_may_have_other_properties_stays_open(schema: dict[str, Any]) -> None:
    assert followable(schema, "tools") == schema


@pytest.mark.parametrize(
    ("keyword", "match"),
    [
        ("maxLenght", "'maxLength'"),
        ("adittionalProperties", "'additionalProperties'"),
        ("x-guidance", "x-guidance"),
    ],
)
def test_a_keyword_that_would_bind_nothing_is_refused(keyword: str, match: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", keyword: 3}}}
    with pytest.raises(RequestError, match=match) as caught:
        followable(schema, "tools[0]")
    assert caught.value.param == "tools[0]"


def test_what_only_tells_something_is_taken() -> None:
    followable({"title": "T", "x-order": 1, "properties": {"maxLenght": {"examples": ["a"]}}}, "tools")
