"""The type and range of a JSON Schema, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def span(described: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Of a field of `schema`."""
    if "$ref" in described:
        found = schema["$defs"][described["$ref"].rsplit("/", 1)[1]]
        return "{" + ", ".join(found["properties"]) + "}"
    for either in ("anyOf", "oneOf"):
        if either in described:
            kinds = [span(each, schema) for each in described[either] if each.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "enum" in described or "const" in described:
        values = described.get("enum", [described.get("const")])
        return ", ".join(json.dumps(value, ensure_ascii=False) for value in values)
    return _plain(described, schema)


def _plain(described: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    kind = described.get("type", "any")
    if kind in ("integer", "number"):
        return f"{kind}{_range(described)}"
    if kind == "array":
        most = f" of at most {described['maxItems']}" if "maxItems" in described else ""
        return f"list{most}: {span(described.get('items', {}), schema)}"
    if described.get("format") == "binary":
        return "bytes"
    if kind == "string" and "maxLength" in described:
        return f"string of at most {described['maxLength']} characters"
    if kind == "string" and "pattern" in described:
        return f"string like `{described['pattern']}`"
    return str(kind)


def _range(described: Mapping[str, Any]) -> str:
    low = described.get("minimum", described.get("exclusiveMinimum"))
    high = described.get("maximum", described.get("exclusiveMaximum"))
    over = "over" if "exclusiveMinimum" in described else "from"
    told = "" if low is None else f" {over} {low}"
    return told if high is None else f"{told} to {high}"
