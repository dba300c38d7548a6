"""Writes docs/api.md, docs/api/*.md and their Chinese twins: the pages in *.in.md, with tables from the code.

    python -m tools.docs.api

A line `<!-- fields METHOD /path -->` becomes the table of that route's parameters, and `<!-- routes -->` that
of the served routes.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dialoop.backends.echo import EchoEngine
from dialoop.serve.app import make_app
from dialoop.serve.fields import REFUSED, Refused
from dialoop.serve.responses import fields as responses
from dialoop.store.registry import Store
from tools.docs.examples import CHAT, TEXT
from tools.docs.peers import BY_PARAMETER, NOTES, PEERS, peers_of_route
from tools.docs.platform import ROUTES, Documented, Fields
from tools.docs.spans import span

HERE = Path(__file__).parent
_DOCS = HERE.parents[1] / "docs"
LANGUAGES = ("en", "zh")
CHAT_ROUTE, TEXT_ROUTE = "POST /v1/chat/completions", "POST /v1/completions"
REFUSED_BY: Mapping[str, Mapping[str, Refused]] = {
    CHAT_ROUTE: REFUSED,
    "POST /v1/responses": responses.REFUSED,
}
DOCUMENTED: Mapping[str, Documented] = {
    CHAT_ROUTE: Documented("dialoop.serve.fields:ChatBody", CHAT, peers=BY_PARAMETER | {"prompt": "N N N N"}),
    TEXT_ROUTE: Documented("dialoop.serve.fields:CompletionBody", CHAT | TEXT, peers=BY_PARAMETER),
    **ROUTES,
}
_LONG = re.compile(r"(.)\1{30,}")
_MARK = re.compile(r"<!-- (fields|routes) ?(.*?) -->\n")


def sources() -> dict[Path, Path]:
    """Each page, and what it is made from."""
    names = sorted(path.name.removesuffix(".en.in.md") for path in (HERE / "pages").glob("*.en.in.md"))
    return {
        _DOCS / f"{page}{'.zh' if language == 'zh' else ''}.md": HERE / folder / f"{name}.{language}.in.md"
        for folder, name, page in [("", "api", "api"), *(("pages", name, f"api/{name}") for name in names)]
        for language in LANGUAGES
    }


def page(source: Path) -> str:
    """The whole page."""
    return _MARK.sub(
        lambda mark: "\n".join(_routes() if mark[1] == "routes" else _fields(mark[2])) + "\n",
        source.read_text(encoding="utf-8"),
    )


def schema_of(route: Documented) -> Mapping[str, Any]:
    """The JSON Schema of its parameters."""
    module, _, name = route.body.partition(":")
    found = getattr(importlib.import_module(module), name)
    return found if isinstance(found, dict) else found.model_json_schema()  # type: ignore[no-any-return]


def _fields(key: str) -> Iterator[str]:
    route = DOCUMENTED[key]
    schema = schema_of(route)
    peers = PEERS if route.peers else ()
    columns = ["parameter", "class", "type and range", "default", "what it does", *peers, "works", "refused"]
    yield _row(columns)
    yield _row(["---"] * len(columns))
    for field, described in schema["properties"].items():
        default = "required" if field in schema.get("required", []) else _json(described.get("default"))
        kind, told = _kind(described.get("description", "").replace("\n", " "))
        told += f" ({NOTES[field]})" if route.peers is BY_PARAMETER and field in NOTES else ""
        yield _row([f"`{field}`", kind, span(described, schema), default, told, *_rest(route, field)])
    for field, refused in REFUSED_BY.get(key, {}).items():
        why = f"{refused.why[0].upper()}{refused.why[1:]}."
        yield _row([f"`{field}`", "refused", "-", "-", why, *_rest(route, field)])


def _kind(told: str) -> tuple[str, str]:
    """The class of a parameter, and what it does."""
    kind = "hint" if told.startswith("Hint: ") else "refused" if told.startswith("Refused: ") else "honoured"
    told = told.removeprefix("Hint: ").removeprefix("Refused: ")
    return kind, told[:1].upper() + told[1:]


def _rest(route: Documented, field: str) -> list[str]:
    """What others do with it, an example that works and one that does not."""
    peers = route.peers[field].split() if route.peers else []
    return [*peers, *map(_shown, route.rows[field])]


def _shown(example: Fields) -> str:
    given = {name: value for name, value in example.items() if value is not None or len(example) == 1}
    return f"`{_LONG.sub(lambda run: run[1] * 3 + '…', _json(given))}`"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=lambda data: data.decode())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _routes() -> Iterator[str]:
    columns = ["route", "what it does", *PEERS]
    yield _row(columns)
    yield _row(["---"] * len(columns))
    for method, path, told in routes():
        yield _row([f"`{method} {path}`", told, *peers_of_route(method, path)])


def routes() -> Iterator[tuple[str, str, str]]:
    """Method, path and first line of each served route."""
    with TemporaryDirectory() as home, Store.open(Path(home)) as store:
        document = make_app(EchoEngine(), store=store).openapi()
    for path, methods in sorted(document["paths"].items()):
        for method, told in methods.items():
            text = told.get("description") or told.get("summary") or ""
            yield method.upper(), path, text.split("\n")[0]


if __name__ == "__main__":
    for path, source in sources().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(page(source), encoding="utf-8")
