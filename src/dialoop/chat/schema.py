"""JSON Schemas as requests bring them: refused where they would not be kept to, closed where open."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from dialoop.errors import RequestError, echo

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_SINGLES = (
    "items", "additionalProperties", "additionalItems", "not", "if", "then", "else", "contains",
    "propertyNames", "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_BOUNDS = (
    "type", "enum", "const", "required", "format", "pattern", "minLength", "maxLength", "minimum",
    "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "uniqueItems",
    "minContains", "maxContains", "minProperties", "maxProperties", "dependentRequired", "dependencies",
    "$ref", "$dynamicRef", "$recursiveRef",
)  # fmt: skip
KEYWORDS = frozenset({*_MAPS, *_LISTS, *_SINGLES, *_BOUNDS})
"""That bind. The others of JSON Schema tell something and bind nothing; so does what it does not know."""
_TELLING = frozenset({
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
    "nullable", "$schema", "$id", "$comment", "$anchor", "contentEncoding", "contentMediaType",
    "contentSchema", "discriminator",
})  # fmt: skip
_NEAR = 0.8


def followable(schema: Mapping[str, Any], param: str) -> dict[str, Any]:
    """`schema`, in which an object that lists its properties has no others, unless it says that it may.

    Every value that it allows `schema` allows too. Raises RequestError about a keyword that is misspelt, or
    that would loosen what is kept to; those that cannot be kept to are found when it is compiled.
    """
    try:
        nodes = list(_nodes(schema))
    except RecursionError:
        raise RequestError(f"{param} is nested too deeply: send a flatter schema", param=param) from None
    for node in nodes:
        _check(node, param)
    if any("allOf" in node for node in nodes):
        return dict(schema)
    closed: dict[str, Any] = _closed(schema)
    return closed


def _nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, Mapping):
        yield schema
        for _, _, inner in _inner(schema):
            yield from _nodes(inner)


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """keyword, place under it, schema."""
    for keyword, value in schema.items():
        if keyword in _MAPS and isinstance(value, Mapping):
            yield from ((keyword, name, each) for name, each in value.items())
        elif (keyword in _LISTS or keyword == "items") and isinstance(value, list):
            yield from ((keyword, i, each) for i, each in enumerate(value))
        elif keyword in _SINGLES and isinstance(value, Mapping):
            yield keyword, None, value


def _check(node: Mapping[str, Any], param: str) -> None:
    for keyword in node.keys() - KEYWORDS - _TELLING:
        if keyword == "x-guidance":
            raise RequestError(
                f"{param}: the keyword 'x-guidance' is not for requests: leave it out", param=param
            )
        close = difflib.get_close_matches(keyword[:64], KEYWORDS, n=1, cutoff=_NEAR)
        if close:
            raise RequestError(
                f"{param}: the keyword {echo(keyword)} would bind nothing; did you mean {close[0]!r}?",
                param=param,
            )


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    new = dict(schema)
    for keyword, place, inner in _inner(schema):
        if place is None:
            new[keyword] = _closed(inner)
        else:
            value = new[keyword]
            new[keyword] = value.copy() if value is schema[keyword] else value
            new[keyword][place] = _closed(inner)
    # Beside these keywords properties may be listed elsewhere.
    others = ("additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "$ref")
    if isinstance(schema.get("properties"), Mapping) and not any(other in schema for other in others):
        new["additionalProperties"] = False
    return new
