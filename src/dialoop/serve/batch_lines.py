"""The lines of a batch's input: each a request with a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialoop.data.training_file import json_objects
from dialoop.errors import DataError, echo, nearest

ENDPOINTS = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations",
)  # fmt: skip
"""What batches may ask, where the server has it."""
MOST_LINES = 50_000
"""As at OpenAI."""
MOST_PROBLEMS = 100
MOST_CUSTOM_ID = 512
_KEYS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class Line:
    """One request."""

    number: int
    custom_id: str
    url: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a line cannot be asked; line None = the file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    def to_openai(self) -> dict[str, Any]:
        """As the errors of a batch tell it."""
        return {"code": self.code, "line": self.line, "message": self.message, "param": self.param}

    def __str__(self) -> str:
        return self.message if self.line is None else f"line {self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What an input file holds. models: that its lines name.  problems: the first of them."""

    total: int
    models: tuple[str, ...]
    problems: tuple[Problem, ...]


def lines_of(path: Path) -> Iterator[Line]:
    """The requests of a file that was checked."""
    for number, row in json_objects(path):
        yield Line(number, row["custom_id"], row["url"], row["body"])


def check_lines(
    path: Path,
    endpoints: Sequence[str],
    served: Callable[[str], bool] | None = None,
    *,
    most_problems: int = MOST_PROBLEMS,
) -> Checked:
    """Read every line. endpoints: that lines may name.  served: knows the models, None = any."""
    seen: dict[str, int] = {}
    models: dict[str, int] = {}
    problems: list[Problem] = []
    total = 0
    try:
        for number, row in json_objects(path):
            total += 1
            problem = _too_many(total) or _problem(row, number, endpoints, seen)
            if problem is None:
                models.setdefault(row["body"]["model"], number)
                continue
            problems.append(problem)
            if len(problems) >= most_problems or problem.line is None:
                break
    except DataError as error:
        problems.append(_bad_line(str(error)))
    if not total and not problems:
        problems.append(Problem("empty_file", "the file has no lines: write a request on each"))
    for model, number in models.items():
        if served is not None and not served(model):
            said = f"model {echo(model)} is not served here: see /v1/models"
            problems.append(Problem("model_not_found", said, "body.model", number))
    return Checked(total, tuple(models), tuple(problems[:most_problems]))


def _bad_line(message: str) -> Problem:
    """What is no JSON object, out of `line 3: why`."""
    where, _, why = message.partition(": ")
    number = where.removeprefix("line ")
    if not number.isdecimal():
        return Problem("invalid_json_line", message)
    return Problem("invalid_json_line", why, line=int(number))


def _too_many(total: int) -> Problem | None:
    if total <= MOST_LINES:
        return None
    return Problem("too_many_tasks", f"more than {MOST_LINES} lines: send them as several batches")


def _problem(
    row: Mapping[str, Any], number: int, endpoints: Sequence[str], seen: dict[str, int]
) -> Problem | None:
    def say(code: str, message: str, param: str) -> Problem:
        return Problem(code, message, param, number)

    for key in _KEYS:
        if row.get(key) is None:
            return say("missing_required_parameter", f"{key} is missing: add it", key)
    for key in row.keys() - set(_KEYS):
        return say("unknown_parameter", f"unknown field {echo(key)}{nearest(key[:64], _KEYS)}", key[:64])
    name, method, url, body = (row.get(key) for key in _KEYS)
    if not isinstance(name, str) or not 0 < len(name) <= MOST_CUSTOM_ID:
        wanted = f"expected a string of 1 to {MOST_CUSTOM_ID} characters"
        return say("invalid_custom_id", f"custom_id = {echo(name)}: {wanted}", "custom_id")
    if seen.setdefault(name, number) != number:
        message = f"custom_id = {echo(name)} stands in line {seen[name]} already: name each once"
        return say("duplicate_custom_id", message, "custom_id")
    if method != "POST":
        return say("invalid_method", f"method = {echo(method)}: expected 'POST'", "method")
    if url not in endpoints:
        return say("invalid_url", f"url = {echo(url)}: expected {' or '.join(endpoints)}", "url")
    return _body_problem(body, say)


def _body_problem(body: Any, say: Callable[[str, str, str], Problem]) -> Problem | None:
    if not isinstance(body, dict):
        return say("invalid_body", f"body = {echo(body)}: expected an object", "body")
    if not isinstance(body.get("model"), str):
        return say("missing_required_parameter", "body.model is missing: name a model", "body.model")
    if body.get("stream"):
        return say("invalid_stream", "body.stream is set: batches give whole answers", "body.stream")
    return None
