"""Writes docs/api.md and api.zh.md: the pages in api.*.in.md with their tables, which come from the code.

    python -m tools.docs.api

A line `<!-- fields BODY -->` becomes the table of a pydantic body (`dialoop.serve.fields:ChatBody`), and
`<!-- routes -->` that of the served routes.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dialoop.backends.echo import EchoEngine
from dialoop.serve.app import make_app
from dialoop.serve.fields import REFUSED, ChatBody, SamplingBody
from dialoop.store.registry import Store
from tools.docs.examples import CHAT, TEXT
from tools.docs.peers import NOTES, PEERS, peers_of

HERE = Path(__file__).parent
_DOCS = HERE.parents[1] / "docs"
PAGES = {"en": _DOCS / "api.md", "zh": _DOCS / "api.zh.md"}
_MARK = re.compile(r"<!-- (fields|routes) ?(\S*) -->\n")


def page(language: str) -> str:
    """The whole page."""
    source = (HERE / f"api.{language}.in.md").read_text(encoding="utf-8")
    return _MARK.sub(
        lambda mark: "\n".join(_routes() if mark[1] == "routes" else _fields(mark[2])) + "\n", source
    )


def _fields(where: str) -> Iterator[str]:
    module, _, name = where.partition(":")
    body = getattr(importlib.import_module(module), name)
    schema = body.model_json_schema()
    compared = issubclass(body, SamplingBody)
    examples = (CHAT if body is ChatBody else CHAT | TEXT) if compared else {}
    columns = ["parameter", "class", "type and range", "default", "what it does"]
    columns += [*PEERS, "an example"] if compared else []
    yield _row(columns)
    yield _row(["---"] * len(columns))
    required = schema.get("required", [])
    for field, described in schema["properties"].items():
        yield _row(_cells(field, described, schema, field in required, compared, examples))
    for field, refused in REFUSED.items() if body is ChatBody else ():
        cells = [f"`{field}`", "refused", "-", "-", f"{refused.why[0].upper()}{refused.why[1:]}."]
        yield _row([*cells, *peers_of(field), _example(field, examples)])


def _cells(
    field: str,
    described: Mapping[str, Any],
    schema: Mapping[str, Any],
    required: bool,
    compared: bool,
    examples: Mapping[str, Any],
) -> list[str]:
    told = described.get("description", "").replace("\n", " ")
    kind = "hint" if told.startswith("Hint: ") else "refused" if told.startswith("Refused: ") else "honoured"
    told = told.removeprefix("Hint: ").removeprefix("Refused: ")
    default = "required" if required else json.dumps(described.get("default"), ensure_ascii=False)
    cells = [f"`{field}`", kind, span(described, schema), default, told[:1].upper() + told[1:]]
    if not compared:
        return cells
    note = f" ({NOTES[field]})" if field in NOTES else ""
    return [*cells[:-1], cells[-1] + note, *peers_of(field), _example(field, examples)]


def _example(field: str, examples: Mapping[str, Any]) -> str:
    return f"`{json.dumps(examples[field][0], ensure_ascii=False)}`" if field in examples else ""


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def span(described: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The type and range of a JSON Schema, in words."""
    if "$ref" in described:
        found = schema["$defs"][described["$ref"].rsplit("/", 1)[1]]
        return "{" + ", ".join(found["properties"]) + "}"
    if "anyOf" in described:
        kinds = [span(each, schema) for each in described["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in described or "const" in described:
        values = described.get("enum", [described.get("const")])
        return ", ".join(json.dumps(value, ensure_ascii=False) for value in values)
    return _plain(described, schema)


def _plain(described: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    kind = described.get("type", "any")
    if kind in ("integer", "number"):
        low = described.get("minimum", described.get("exclusiveMinimum"))
        high = described.get("maximum", described.get("exclusiveMaximum"))
        over = "over" if "exclusiveMinimum" in described else "from"
        return kind if high is None else f"{kind} {over} {low} to {high}"
    if kind == "array":
        most = f" of at most {described['maxItems']}" if "maxItems" in described else ""
        return f"list{most}: {span(described.get('items', {}), schema)}"
    if kind == "string" and "maxLength" in described:
        return f"string of at most {described['maxLength']} characters"
    return {"object": "object"}.get(kind, str(kind))


def _routes() -> Iterator[str]:
    yield _row(["route", "what it does"])
    yield _row(["---", "---"])
    with TemporaryDirectory() as home, Store.open(Path(home)) as store:
        document = make_app(EchoEngine(), store=store).openapi()
    for path, methods in sorted(document["paths"].items()):
        for method, told in methods.items():
            text = (told.get("description") or told.get("summary") or "").split("\n")[0]
            yield _row([f"`{method.upper()} {path}`", text])


if __name__ == "__main__":
    for language, path in PAGES.items():
        path.write_text(page(language), encoding="utf-8")
